"""compute-sanitizer over every kernel, and whether it sees a planted fault.

A run over kernels should be clean; errors of torch's own kernels are told by name.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen

from ioi_fast.benchmarks.gpu.device_tests import processes
from ioi_fast.benchmarks.gpu.device_tests.sanitizer_reports import Reports, kernel_of, kernels
from ioi_fast.benchmarks.gpu.units import Row

TOOL = "compute-sanitizer"
MODES = ("KERNELS", "memcheck-fault", "initcheck-fault")
PROGRAM = "ioi_fast.benchmarks.gpu.device_tests.sanitizer"
FOUND = 86  # the tool's exit status where it found errors
SECONDS = 900  # after which the watched program ends by itself, should nobody end it
# The program alone is watched, not the compilers that it starts, and however long torch takes to be
# read; a faulty kernel is ended, and not all that comes after it.
OPTIONS = {
    "--error-exitcode": str(FOUND),
    "--target-processes": "application-only",
    "--launch-timeout": "300",
    "--destroy-on-device-error": "kernel",
    "--show-backtrace": "device",
}
# Libraries ask a driver what it may refuse to tell: that is no error in memory.
OF_A_TOOL = {"memcheck": {"--report-api-errors": "no"}, "initcheck": {}}
FAULTS = {
    "memcheck": r"Invalid __global__ write",
    "initcheck": r"Uninitialized __global__ memory read",
}


def place() -> tuple[str | None, list[str]]:
    """Where the tool is, or None, and where it was looked for."""
    homes = [os.environ.get(name) for name in ("CUDA_HOME", "CUDA_PATH", "CUDA_ROOT")]
    homes += ["/usr/local/cuda", "/opt/cuda", *sorted(map(str, Path("/usr/local").glob("cuda-*")))]
    looked = [f"{home}/{part}" for home in filter(None, homes) for part in ("bin", TOOL)]
    found = shutil.which(TOOL) or shutil.which(TOOL, path=os.pathsep.join(looked))
    return found, ["PATH", *looked]


@dataclass
class SanitizerRun:
    """A tool of compute-sanitizer over the kernels or over a planted fault."""

    tool: str  # memcheck or initcheck
    mode: str  # of the program that it watches
    folder: Path
    device: str
    limit: int = SECONDS
    process: Popen | None = None
    begun: float = 0.0
    took: float = 0.0
    stopped: bool = False
    looked: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.tool}-{self.mode}"

    @property
    def busy(self) -> bool:
        return self.process is not None and not self.took

    def start(self) -> None:
        """Starts the tool, if there is one."""
        tool, self.looked = place()
        if tool is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.glob(f"{self.name}.*"):
            path.unlink()
        options = {"--tool": self.tool, **OPTIONS, **OF_A_TOOL[self.tool]}
        command = [tool, *[word for pair in options.items() for word in pair]]
        command += ["--log-file", self.folder / f"{self.name}.tool.txt"]
        command += [sys.executable, "-P", "-m", PROGRAM, self.mode, "--seconds", self.limit]
        environment = processes.surroundings(self.device)
        # Every tensor is its own allocation, so that the tool knows where it ends.
        for name in ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"):
            environment.pop(name, None)
        environment["PYTORCH_NO_CUDA_MEMORY_CACHING"] = "1"
        self.begun = time.monotonic()
        self.process = processes.start(command, environment, self.folder / f"{self.name}.txt")

    def look(self) -> None:
        """Sees whether it has ended."""
        if self.busy and self.process.poll() is not None:
            self.took = time.monotonic() - self.begun

    def stop(self) -> None:
        """Ends it."""
        if self.busy:
            self.stopped = True
            processes.end(self.process)
            self.took = time.monotonic() - self.begun

    def row(self) -> Row:
        """What the tool found, and whether that is what it should have."""
        if self.process is None:
            return {"left_out": f"{TOOL} is not installed: looked in {', '.join(self.looked)}"}
        log, said = (self.folder / f"{self.name}.{kind}" for kind in ("tool.txt", "txt"))
        # A tool that can't write its log says why where the program speaks.
        text = "\n".join(one.read_text(errors="replace") for one in (log, said) if one.exists())
        ran = [one["kernel"] for one in told(text) if "kernel" in one]
        if self.stopped:
            words = (
                f"no time: it was ended after {self.took:.0f} s, when {len(ran)} kernels had run"
            )
            return {"left_out": words, "no_time": True}
        reports = Reports(text)
        if reports.refusal:
            return {"left_out": f"{TOOL}: {reports.refusal}"}
        return self._judged(reports, ran, said)

    def _planted(self, block: list[str]) -> bool:
        """Whether an error is the fault that was planted."""
        return re.match(FAULTS[self.tool], block[0]) is not None and kernel_of(block)[1]

    def _judged(self, reports: Reports, ran: list[str], said: Path) -> Row:
        ours, others = Counter(), Counter()
        for block in reports.blocks:
            name, own = kernel_of(block)
            (ours if own else others)[name] += 1
        row: Row = {
            "errors": reports.summary,
            "kernels": len(ran),
            "ours": dict(ours),
            "others": dict(others),
            "first": reports.blocks[0][:8] if reports.blocks else [],
            "status": processes.ending(self.process.returncode),
            "took": round(self.took, 1),
        }
        if self.mode == "KERNELS":
            missed = self._not_clean(row, ran, said)
        else:
            caught = [one for one in reports.blocks if self._planted(one)]
            row["caught"] = f"{caught[0][0]} in {kernel_of(caught[0])[0]}" if caught else None
            missed = None if caught else "the planted fault was not caught" + _why(row, said)
        return {**row, "missed": missed} if missed else row

    def _not_clean(self, row: Row, ran: list[str], said: Path) -> str | None:
        """What is wrong of a run that should be clean, or None."""
        left = [name for name in kernels() if name not in ran]
        if row["errors"] is None or left:
            which = f" ({', '.join(left)} did not run)" if left else ""
            return f"it came to no end{which}" + _why(row, said)
        # Torch's own kernels may read what they then do not use.
        wrong = row["ours"] if self.tool == "initcheck" else {**row["ours"], **row["others"]}
        if wrong:
            names = ", ".join(f"{count} in {name}" for name, count in wrong.items())
            return f"{row['errors']} errors: {names}"
        return None if row["errors"] == 0 or row["others"] else f"{row['errors']} errors"


def _why(row: Row, said: Path) -> str:
    """What else was said, for a line."""
    words = [*row["first"][:2], *processes.last_lines(said, 1)]
    return f": {'; '.join(words)}"[:400] if words else ""


@dataclass
class Interpreted:
    """The same program in Triton's interpreter, all of it in one process."""

    folder: Path
    process: Popen | None = None
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        self.log = self.folder / "interpreted.txt"

    @property
    def busy(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Starts it, once."""
        if self.process is None:
            command = [sys.executable, "-P", "-m", PROGRAM, *MODES, "--seconds", SECONDS]
            self.process = processes.start(command, processes.surroundings(None), self.log)

    def look(self) -> None:
        """Nothing is to be seen before it has ended."""

    def stop(self) -> None:
        """Ends it."""
        processes.end(self.process)

    def row(self, mode: str) -> Row:
        """What the program said of one of its modes."""
        facts: list[dict] = []
        for fact in told(self.log.read_text(errors="replace")):
            if fact.get("done") == mode:
                break
            facts = [] if "done" in fact else [*facts, fact]
        else:
            said = "; ".join(processes.last_lines(self.log, 2))
            return {"dry": "in Triton's interpreter", "missed": f"{mode} came to no end: {said}"}
        known = {name: value for fact in facts for name, value in fact.items() if name != "kernel"}
        row: Row = {"kernels": sum("kernel" in fact for fact in facts), **known}
        if mode != "KERNELS" and not known:
            row["missed"] = "the planted fault was not caught"
        return {"dry": "in Triton's interpreter", **row}


def told(text: str) -> list[dict]:
    """Lines of JSON in what a program said."""
    found = []
    for line in text.splitlines():
        if line.startswith("{"):
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
    return found
