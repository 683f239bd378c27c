"""The Triton kernels on a GPU: the tests of the interpreter, with the device in its place."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "in_interpreter"

GPU_FILES = ["test_kernels.py", "test_calls.py", "test_replays.py", "test_repeats.py"]


@pytest.mark.gpu
@pytest.mark.parametrize("file", GPU_FILES)
def test_on_the_gpu(file: str) -> None:
    """A launch a thousand times has to give the same bits: races show in test_repeats.py."""
    environment = {**os.environ, "IOI_FAST_TEST_DEVICE": "cuda"}
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", HERE / file]
    run = subprocess.run(
        list(map(str, command)), env=environment, capture_output=True, text=True, timeout=280
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
