"""The Triton kernels' meaning, in Triton's interpreter, which needs a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "in_interpreter"
pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")


# Minutes on a machine that does other things too.
@pytest.mark.timeout(900)
@pytest.mark.parametrize("file", sorted(path.name for path in HERE.glob("test_*.py")))
def test_in_the_interpreter(file: str) -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", HERE / file]
    run = subprocess.run(
        list(map(str, command)), env=environment, capture_output=True, text=True, timeout=880
    )
    # pytest exits with 5 where it finds no test
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
