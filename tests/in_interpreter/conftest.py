"""Every launch of these tests may touch the tensors that it was given, and nothing else."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import _disable_current_modes

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "instruments")]


def _ignored() -> list[str]:
    from device import ON_GPU

    if ON_GPU:  # where nothing watches addresses, and no device has to be pretended
        return ["test_memory_of_kernels.py", "test_placement.py"]
    return [] if os.environ.get("TRITON_INTERPRET") == "1" else ["test_*.py"]


collect_ignore_glob = _ignored()


@pytest.fixture(autouse=True)
def launches(monkeypatch: pytest.MonkeyPatch) -> list:
    """(kernel, traffic) of every launch so far; outputs are NaN before one."""
    from device import ON_GPU
    from guarded_memory import Banded, guarded, unwatched

    from ioi_fast.kernels import triton_ops

    launch, seen = triton_ops.launch_kernel, []

    def watched(*given, **more):
        if ON_GPU and torch.cuda.is_current_stream_capturing():
            launch(*given, **more)  # to look at bands would be to wait
            return
        with _disable_current_modes():  # what watches is under no rules itself
            watch(*given, **more)

    def watch(kernel, programs, chosen, *arguments, **more):
        names = kernel.arg_names[: len(arguments)]
        given = dict(zip(names, arguments, strict=True))
        banded = {name: Banded(t) for name, t in given.items() if isinstance(t, torch.Tensor)}
        if "out" in banded:
            banded["out"].inner.fill_(torch.nan)
        tensors = {name: one.inner for name, one in banded.items()}
        guarded_ones = {name: t for name, t in tensors.items() if t is not tensors.get("out")}
        if "out" in tensors:
            guarded_ones["out"] = tensors["out"]
        with (unwatched if ON_GPU else guarded)(**guarded_ones) as traffic:
            launch(kernel, programs, chosen, *{**given, **tensors}.values(), **more)
        for name, one in banded.items():
            one.check(name)
            if ON_GPU or traffic.stored[name]:
                one.write_back()
        seen.append((kernel.__name__, traffic))

    monkeypatch.setattr(triton_ops, "launch_kernel", watched)
    return seen
