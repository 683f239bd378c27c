"""The tests on a device, kernels first, and compute-sanitizer over every kernel.

All processes run beside each other, since none is timed; each unit waits for its own.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from ioi_fast.benchmarks.gpu.device_tests.pytest_runs import FILES, PAUSE, FileRun, why_not
from ioi_fast.benchmarks.gpu.device_tests.sanitizer_runs import Interpreted, SanitizerRun
from ioi_fast.benchmarks.gpu.setting import Setting
from ioi_fast.benchmarks.gpu.units import Allowance, Row, Unit

OF_ALL = 0.8  # of the time until the part has to end, so that every row is written before
# Each unit by the tool and what it watches.
SANITIZED = {
    "memcheck": ("memcheck", "KERNELS"),
    "memcheck of a fault": ("memcheck", "memcheck-fault"),
    "initcheck": ("initcheck", "KERNELS"),
    "initcheck of a fault": ("initcheck", "initcheck-fault"),
}
# A dry run's tests: one or two of each kernel, and of what goes around them.
SELECTION = {
    "test_kernels.py": (
        "test_layernorm_and_readout_delta[shape1-0.1]",
        "test_gelu_delta_far_from_zero",
        "test_head_write[1-5]",
        "test_strided_inputs",
        "test_mlp_in_delta[1-1]",
        "test_attention_delta_of_long_prompts_and_wide_heads[1-65-1-8-0.01]",
    ),
    "test_tf32.py": ("test_products_are_of_rounded_operands",),
    "test_calls.py": ("test_path_patching[logits-nothing]",),
    "test_wave_graphs.py": ("test_what_a_recording_forbids_is_seen",),
    "test_repeats.py": tuple(
        f"test_the_same_bits[{name}]" for name in ("one query", "queries", "head_write", "mlp_in")
    ),
}


class Run(Protocol):
    """Processes that have one unit's finding."""

    @property
    def busy(self) -> bool: ...

    def start(self) -> None: ...

    def look(self) -> None: ...

    def stop(self) -> None: ...


@dataclass
class Beside:
    """Runs that begin together with the first unit that asks for its row, and end by its time."""

    runs: dict[str, Run] = field(default_factory=dict)
    rows: dict[str, Callable[[], Row]] = field(default_factory=dict)
    until: float | None = None

    def add(self, unit: str, run: Run, row: Callable[[], Row]) -> None:
        """Adds a unit's run, and what it is read from when it has ended."""
        self.runs[unit], self.rows[unit] = run, row

    def row(self, unit: str, allowance: Allowance) -> Row:
        """Of one unit; by then those before it, in this process or one that went on here, are
        done."""
        if self.until is None:
            self.until = time.monotonic() + OF_ALL * allowance.most
            names = list(self.runs)
            for name in names[names.index(unit) :]:
                self._start(name)
        run = self.runs[unit]
        while run.busy and time.monotonic() < self.until:
            for one in self.runs.values():
                one.look()
            time.sleep(PAUSE)
        run.look()
        if run.busy:
            run.stop()
        return self.rows[unit]()

    def _start(self, unit: str) -> None:
        try:
            self.runs[unit].start()
        except OSError as problem:
            row = {"failed": f"it could not be started: {problem}"}
            self.rows[unit] = lambda: row


def units(setting: Setting) -> Iterator[Unit]:
    """The files of tests, then both tools over all kernels and over a fault; nothing runs yet."""
    beside, found = Beside(), {}
    device = None if setting.dry else setting.gpu
    folder = Path(tempfile.mkdtemp(prefix="ioi_fast-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in FILES:
        found[name] = _left_out
        if why_not() is None:
            run = FileRun.of(name, folder, device, SELECTION[name] if setting.dry else ())
            beside.add(name, run, run.row)
            found[name] = partial(beside.row, name)
    interpreted = Interpreted(folder)
    for name, (tool, mode) in SANITIZED.items():
        if setting.dry:
            beside.add(name, interpreted, partial(interpreted.row, mode))
        else:
            run = SanitizerRun(tool, mode, folder, device)
            beside.add(name, run, run.row)
        found[name] = partial(beside.row, name)
    for name, run in found.items():
        yield Unit(name, run)


def _left_out(_: Allowance) -> Row:
    return {"left_out": why_not()}


def line(row: Row) -> str:
    """A row in one line."""
    dry = f" (dry: {row['dry']})" if "dry" in row else ""
    if "tests" in row:
        counts = row["counts"]
        skipped = f", {counts['skipped']} skipped" if counts["skipped"] else ""
        passed = f"{counts['passed']} of {row['tests']} tests passed"
        took = "" if dry else f", {row['took']:.0f} s"
        return f"{passed}{skipped}{took}{dry}"
    if row.get("caught"):
        return f"caught: {row['caught']}{dry}"
    errors = f", {row['errors']} errors" if row.get("errors") is not None else ""
    others = "".join(f", {count} in {name}" for name, count in row.get("others", {}).items())
    return f"{row.get('kernels', 0)} kernels{errors}{others}{dry}"
