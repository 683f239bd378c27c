"""The parts of a run, in order, with their shares of the time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module

from ioi_fast.benchmarks.gpu.setting import Setting
from ioi_fast.benchmarks.gpu.units import Row, Unit


@dataclass(frozen=True, slots=True)
class Part:
    """A part by its name, the module that has its `units` and `line`, and its share of the time."""

    name: str
    module: str
    weight: float = 1.0
    about: str = ""
    truths: bool = False  # the host, which it does not time, computes truths beside it

    def units(self, setting: Setting) -> Iterator[Unit]:
        """What it is made of; nothing runs yet."""
        return self._of("units")(setting)

    def line(self, row: Row) -> str:
        """A row that has a finding, in one line."""
        return self._of("line")(row)

    def _of(self, name: str) -> Callable:
        return getattr(import_module(self.module), name)


HERE = "ioi_fast.benchmarks.gpu"
PARTS = (
    Part("device", f"{HERE}.ceilings", 25, "what the device is, and what it reaches at most"),
    Part("tests", f"{HERE}.device_tests.part", 120, "its tests, and its sanitizer", truths=True),
    Part("kernels", f"{HERE}.kernels.part", 95, "each kernel alone", truths=True),
    Part("jobs", f"{HERE}.jobs.part", 150, "each job: error, time, launches, memory, bits"),
    Part("peers", f"{HERE}.peers.part", 115, "others on the same device, and a ladder up to ours"),
    Part("throughput", f"{HERE}.throughput", 35, "variants a second against prompts; a profile"),
)
NAMES = tuple(part.name for part in PARTS)


def chosen(names: Sequence[str], tune: bool) -> list[Part]:
    """Some of the parts, in order; tuning doubles what the kernels take."""
    some = [part for part in PARTS if part.name in names]
    return [
        replace(part, weight=2 * part.weight) if tune and part.name == "kernels" else part
        for part in some
    ]
