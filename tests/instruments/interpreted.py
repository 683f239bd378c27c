"""Runs a file of tests/in_interpreter in a process of its own, as Triton's interpreter needs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "in_interpreter"
FILES = sorted(path.name for path in FOLDER.glob("test_*.py"))
# Of kernels and of waves that are captured; the others are of calls. Each half takes as long, and
# has a worker of its own.
OF_KERNELS = (
    *("test_kernels.py", "test_memory_of_kernels.py", "test_repeats.py"),
    *("test_wave_graphs.py", "test_tf32.py"),
)
OF_CALLS = [file for file in FILES if file not in OF_KERNELS]


def with_slow_tests(files: Iterable[str]) -> list[str]:
    """Files some of whose tests are marked as slow, which the fast suite leaves out."""
    return [file for file in files if "mark.slow" in (FOLDER / file).read_text()]


def with_fast_tests(files: Iterable[str]) -> list[str]:
    """Files that are not marked as slow as a whole."""
    whole = re.compile(r"^pytestmark = .*mark[.]slow", re.MULTILINE)
    return [file for file in files if not whole.search((FOLDER / file).read_text())]


def run_in_the_interpreter(file: str, marked: str = "not slow") -> None:
    """Raises AssertionError unless every test of the file that is marked so passes."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    flags = ["-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", marked]
    command = [sys.executable, *flags, str(FOLDER / file)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=880)
    # pytest exits with 5 where it finds no test
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
