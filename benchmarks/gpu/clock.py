"""Time on a device, by its own events, and what a run launches there.

In a dry run there is no clock, and nothing is run for its time alone.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from ioi_fast.benchmarks.gpu.units import Row

Run = Callable[[], object]
CACHE_BYTES = 256 * 2**20  # more than any GPU's second cache
WRITES = 12  # of it: a millisecond on an H100 by its data sheet


@dataclass(frozen=True, slots=True)
class Clock:
    """Times runs on a device; without one, runs them and says nothing of time."""

    device: torch.device

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def wait(self) -> None:
        """Until the device has done all that it was given."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def seconds(self, run: Run, repeats: int) -> list[float]:
        """Of each repeat, between two events, ascending; none in a dry run."""
        if not self.on_gpu:
            return []
        return sorted(self._between_events(run) for _ in range(repeats))

    def cold_seconds(self, run: Run, repeats: int) -> list[float]:
        """The same of a kernel or few, behind writes that empty the second cache and that the host
        runs ahead of: what the host takes to launch is not in it."""
        if not self.on_gpu:
            return []
        other = torch.empty(CACHE_BYTES, dtype=torch.int8, device=self.device)
        self.wait()

        def cleared() -> None:
            for _ in range(WRITES):
                other.zero_()

        return sorted(self._between_events(run, cleared) for _ in range(repeats))

    def _between_events(self, run: Run, before: Run = lambda: None) -> float:
        with torch.cuda.device(self.device):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            before()
            begin.record()
            run()
            end.record()
            end.synchronize()
        return begin.elapsed_time(end) / 1e3

    def once(self, run: Run) -> tuple[object, Row]:
        """What a run gives, and what it takes: seconds between two events, seconds of the host
        until it has come back and the device is done, and how much more of the device's memory its
        tensors take. Nothing of that in a dry run."""
        if not self.on_gpu:
            return run(), {"seconds": [], "host_seconds": None, "peak_bytes": None}
        made: list[object] = []
        self.wait()
        before = torch.cuda.memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        begun = time.perf_counter()
        seconds = self._between_events(lambda: made.append(run()))
        host = time.perf_counter() - begun
        peak = torch.cuda.max_memory_allocated(self.device) - before
        return made[0], {"seconds": [seconds], "host_seconds": host, "peak_bytes": peak}

    def launches(self, run: Run) -> Row:
        """What one run launches: kernels, copies, and the seconds in which the device is busy."""
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
            run()
            self.wait()
        kinds, busy = Counter(), 0.0
        for event in on_device(found.events()):
            kinds[kind_of(event.name)] += 1
            busy += event.time_range.elapsed_us() / 1e6
        return {**kinds, "busy_seconds": busy}


def on_device(events: list) -> list:
    """Of a profile's events, what a device did."""
    cpu = torch.autograd.DeviceType.CPU
    # Since torch 2.11 what a user has named is shown on the device's side too.
    return [
        e for e in events if e.device_type != cpu and not getattr(e, "is_user_annotation", False)
    ]


def kind_of(name: str) -> str:
    """Whether an event on the device is a copy (by where from and where to) or a kernel."""
    if name.startswith("Memcpy"):
        return "copies " + name.split("(")[0].removeprefix("Memcpy").strip()
    return "fills" if name.startswith("Memset") else "kernels"


class _Operations(TorchDispatchMode):
    """Counts what torch is asked to do; views launch nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, arguments=(), more=None):
        self.count += not function.is_view
        return function(*arguments, **(more or {}))


def counted(run: Run) -> Row:
    """What torch is asked for, views left out, and Triton's kernels: the host's side of launches,
    which needs no device and no profile."""
    from ioi_fast.kernels import triton_ops

    launched, launch = Counter(), triton_ops.launch_kernel

    def seen(kernel, *given, **more):
        launched[kernel.__name__] += 1
        with torch.utils._python_dispatch._disable_current_modes():
            launch(kernel, *given, **more)

    triton_ops.launch_kernel = seen
    try:
        with _Operations() as operations:
            run()
    finally:
        triton_ops.launch_kernel = launch
    return {"operations": operations.count, "triton": dict(launched)}
