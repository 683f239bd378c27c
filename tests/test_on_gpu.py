"""The Triton kernels on a GPU: the tests of the interpreter, with the device in its place."""

from __future__ import annotations

import json
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from ioi_fast.benchmarks.gpu.device_tests.pytest_runs import FILES, FileRun

SECONDS = 1200  # a GPU's first run compiles every tile
pytestmark = [pytest.mark.gpu]
if find_spec("pytest_timeout") is not None:  # whose own limit is shorter
    pytestmark.append(pytest.mark.timeout(SECONDS + 60))


@pytest.mark.parametrize("file", FILES)
def test_on_the_gpu(file: str, tmp_path: Path) -> None:
    """A launch a thousand times has to give the same bits: races show in test_repeats.py."""
    row = FileRun.of(file, tmp_path, "cuda").to_its_end(time.monotonic() + SECONDS)
    assert "missed" not in row, json.dumps(row, indent=1)
