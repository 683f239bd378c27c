"""Every launch of these tests may touch the tensors that it was given, and nothing else."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

if os.environ.get("TRITON_INTERPRET") != "1":
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(autouse=True)
def launches(monkeypatch: pytest.MonkeyPatch) -> list:
    """(kernel, traffic) of every launch so far; outputs are NaN before one."""
    from guarded_memory import Banded, guarded

    from ioi_fast.kernels import triton_ops

    launch, seen = triton_ops.launch_kernel, []

    def watched(kernel, programs, chosen, *arguments, **more):
        names = kernel.arg_names[: len(arguments)]
        given = dict(zip(names, arguments, strict=True))
        banded = {name: Banded(t) for name, t in given.items() if isinstance(t, torch.Tensor)}
        if given.get("sources") is given.get("out") is not None:
            banded["sources"] = banded["out"]  # none were given
        if "out" in banded:
            banded["out"].inner.fill_(torch.nan)
        tensors = {name: one.inner for name, one in banded.items()}
        guarded_ones = {name: t for name, t in tensors.items() if t is not tensors.get("out")}
        if "out" in tensors:
            guarded_ones["out"] = tensors["out"]
        with guarded(**guarded_ones) as traffic:
            launch(kernel, programs, chosen, *{**given, **tensors}.values(), **more)
        for name, one in banded.items():
            one.check(name)
            if traffic.stored[name]:
                one.write_back()
        seen.append((kernel.__name__, traffic))

    monkeypatch.setattr(triton_ops, "launch_kernel", watched)
    return seen
