"""A copy of the checkout with one fault in it, and the tests that are run there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from planted_faults.drawing import ROOT, Fault

# What these look at is the checkout itself, which a copy is not.
NOT_IN_A_COPY = ("test_packaging.py",)
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)
# A file of tests that names no module, but is of one area.
_OF_AREA = {
    "C++ kernels": ("test_cpu_ops.py", "test_panels.py", "test_workspace.py"),
    "Triton kernels": ("test_triton_kernels.py", "test_triton_calls.py"),
}


class Copy:
    """A copy of the checkout's files, as the package that tests import."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "checkout"
        listed = subprocess.run(
            ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        for name in listed.stdout.split("\n"):
            if name and (ROOT / name).is_file():
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.root / name)
        for name in ("kernels", "benchmarks"):
            (self.root / "ioi_fast" / name).symlink_to(self.root / name)

    def seen_by(self, fault: Fault, timeout: int) -> str:
        """The first test that fails with the fault planted, or ""; those that name the file are run
        before all others. ValueError where the file has changed since it was drawn."""
        file, text = self.root / fault.file, (self.root / fault.file).read_text()
        file.write_text(fault.planted(text))
        environment = {**os.environ, "PYTHONPATH": str(self.root), "OMP_NUM_THREADS": "1"}
        if file.suffix != ".py":  # a library with a fault in it is not kept among the user's
            environment["IOI_FAST_CACHE"] = str(self.root.parent / "cache")
        try:
            naming = self._naming(fault)
            found = self._first_failure(naming, environment, timeout) if naming else ""
            return found or self._first_failure((), environment, timeout)
        finally:
            file.write_text(text)

    def _naming(self, fault: Fault) -> list[str]:
        """Files of tests that say the module's name, the shortest first."""
        module = fault.file.removesuffix(".py").replace("/", ".")
        named = re.compile(rf"{re.escape(module)}\b|{re.escape(Path(fault.file).name)}\b")
        files = [
            path for path in (self.root / "tests").glob("test_*.py")
            if named.search(path.read_text()) or path.name in _OF_AREA.get(fault.area, ())
        ]  # fmt: skip
        return [str(path) for path in sorted(files, key=lambda path: path.stat().st_size)]

    def _first_failure(
        self, files: Sequence[str], environment: Mapping[str, str], timeout: int
    ) -> str:
        """Of all tests where no file is named; "" where all pass."""
        skipped = [f"--ignore={self.root / 'tests' / name}" for name in NOT_IN_A_COPY]
        command = [sys.executable, "-P", "-m", "pytest", "-x", "-rfE", "-p", "no:cacheprovider"]
        command += ["--numprocesses=2", "--dist=loadfile", *skipped]
        try:
            run = subprocess.run(
                [*command, *(files or [str(self.root / "tests")])],
                cwd=self.root, env=environment, capture_output=True, text=True, timeout=timeout,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return ""  # a test that hangs ends by its own limit, and fails
        if run.returncode == 0:
            return ""
        failed = _FAILED.search(run.stdout)
        return failed[1] if failed else f"pytest's exit {run.returncode}"
