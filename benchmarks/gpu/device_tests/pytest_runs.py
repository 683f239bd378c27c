"""A file of tests on a device, by several processes at once, and what is left of it in any case.

A GPU's first run compiles a tile in a second or more, and pytest alone does one after another.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from subprocess import Popen

from ioi_fast.benchmarks.gpu.device_tests import processes
from ioi_fast.benchmarks.gpu.machine import processors
from ioi_fast.benchmarks.gpu.units import Row

TESTS = Path(__file__).resolve().parents[3] / "tests" / "in_interpreter"
# Kernels first, and processes for each where there are 16 cores.
FILES = {
    "test_kernels.py": 6,
    "test_tf32.py": 1,
    "test_calls.py": 2,
    "test_wave_graphs.py": 2,
    "test_repeats.py": 6,
}
CORES = 16
AGAIN = 12  # processes that die before a file is given up
PAUSE = 0.1  # seconds
SHOWN = 20  # failures in a row of results
PLUGIN = "ioi_fast.benchmarks.gpu.device_tests.shared_tests"
# The plugin's own, which only a process that has pytest can be asked for.
FOLDER, FROM = "IOI_FAST_SHARED_TESTS", "IOI_FAST_SHARED_TESTS_FROM"
LOST = 70


def why_not() -> str | None:
    """Why the tests can't run here, or None."""
    if not TESTS.is_dir():
        return f"the tests are part of a checkout, not of an installed package ({TESTS})"
    missing = [name for name in ("pytest", "hypothesis") if find_spec(name) is None]
    return f"not installed: {', '.join(missing)}" if missing else None


@dataclass
class FileRun:
    """One file of tests; its processes share a folder, in which they tell of every test."""

    file: Path
    folder: Path
    device: str | None  # None: Triton's interpreter
    count: int = 1  # processes
    select: Sequence[str] = ()  # names of tests; none: all
    running: dict[int, Popen] = field(default_factory=dict)
    ended: dict[int, int | None] = field(default_factory=dict)  # status; None: ended by us
    logs: dict[int, Path] = field(default_factory=dict)
    begun: float = 0.0
    took: float = 0.0

    @classmethod
    def of(cls, name: str, folder: Path, device: str | None, select: Sequence[str] = ()) -> FileRun:
        """A file of FILES, with as many processes as this machine's cores allow."""
        count = round(FILES[name] * min(1.0, processors() / CORES)) if device else 1
        return cls(TESTS / name, folder / Path(name).stem, device, max(1, count), select)

    @property
    def busy(self) -> bool:
        return bool(self.running)

    def start(self) -> None:
        """Starts all processes; nothing of an earlier run counts."""
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "taken").mkdir(parents=True)
        self.begun = time.monotonic()
        for index in range(self.count):
            self._one(index / self.count)

    def _one(self, begin: float) -> None:
        told = {FOLDER: str(self.folder), FROM: str(begin)}
        command = [sys.executable, "-P", "-m", "pytest", "-p", "no:cacheprovider", "-p", PLUGIN]
        command += ["-m", ""]  # slow ones too: they are not on a GPU
        command += [f"{self.file}::{name}" for name in self.select] or [self.file]
        log = self.folder / f"log-{len(self.logs)}.txt"
        environment = {**processes.surroundings(self.device), **told}
        process = processes.start(command, environment, log)
        self.running[process.pid], self.logs[process.pid] = process, log

    def look(self) -> None:
        """Sees which processes have ended; what one that died has left goes to a new one."""
        for process in list(self.running.values()):
            if process.poll() is None:
                continue
            del self.running[process.pid]
            self.ended[process.pid] = process.returncode
            self.took = time.monotonic() - self.begun
            # One that comes to its end leaves none.
            if self._left() and len(self.ended) < self.count + AGAIN:
                self._one(0.0)

    def _left(self) -> int:
        """Tests that nobody has taken."""
        tests = max((line.get("tests", 0) for _, line in self._told()), default=0)
        return tests - len(os.listdir(self.folder / "taken"))

    def stop(self) -> None:
        """Ends what still runs."""
        for process in self.running.values():
            processes.end(process)
            self.ended[process.pid] = None
            self.took = time.monotonic() - self.begun
        self.running = {}

    def _told(self) -> Iterator[tuple[int, dict]]:
        for path in sorted(self.folder.glob("told-*.jsonl")):
            for line in path.read_text(errors="replace").splitlines():
                try:
                    yield int(path.stem.removeprefix("told-")), json.loads(line)
                except ValueError:  # cut off with its process
                    continue

    def to_its_end(self, until: float) -> Row:
        """Starts it and waits, until that time at most, for what is known of every test."""
        self.start()
        try:
            while self.busy and time.monotonic() < until:
                self.look()
                time.sleep(PAUSE)
        finally:
            self.stop()
        return self.row()

    def row(self) -> Row:
        """What is known of every test of the file."""
        found = Found(self.ended)
        for process, line in self._told():
            found.add(process, line)
        found.close(self)
        shutil.rmtree(self.folder / "taken", ignore_errors=True)
        row = found.row()
        row |= {"processes": len(self.ended), "took": round(self.took, 1)}
        row["status"] = sorted({processes.ending(status) for status in self.ended.values()})
        if self.device is None:
            row["dry"] = "a selection" if self.select else "all"
        return row


@dataclass
class Found:
    """Outcomes of tests, put together from what processes told and from how they ended."""

    ended: dict[int, int | None]
    tests: int | None = None
    outcomes: dict[str, str] = field(default_factory=dict)
    failures: list[dict] = field(default_factory=list)
    open: dict[int, str] = field(default_factory=dict)  # tests that have begun, by process
    begun: set[str] = field(default_factory=set)
    unfinished: list[str] = field(default_factory=list)

    def add(self, process: int, line: dict) -> None:
        """Takes in one line."""
        if "tests" in line:
            self.tests = max(self.tests or 0, line["tests"])
        elif "begun" in line:
            self.open[process] = line["begun"]
            self.begun.add(line["begun"])
        elif "lost" in line:
            self.failures[-1]["said"].append(f"the device was lost: {line['said']}")
        elif "outcome" in line:
            self.open.pop(process, None)
            self._outcome(line["test"], line["outcome"], line["said"])

    def _outcome(self, test: str, outcome: str, said: list[str]) -> None:
        if test not in self.outcomes or outcome in ("failed", "error"):
            self.outcomes[test] = outcome  # a test that passes may yet fail to clean up
        if outcome in ("failed", "error"):
            self.failures.append({"test": short(test), "said": said})

    def close(self, run: FileRun) -> None:
        """What processes that ended by themselves or by us had not told."""
        for process, status in self.ended.items():
            test = self.open.get(process)
            if status is None and test:
                self.unfinished.append(short(test))
            elif status is not None and (test or status not in (0, 1, LOST)):
                said = [f"its process ended: {processes.ending(status)}"]
                said += processes.last_lines(run.logs[process])
                self._outcome(test or run.file.name, "error", said)

    def row(self) -> Row:
        """Counts, failures, and what is missed."""
        outcomes = Counter(self.outcomes.values())
        counts = {name: outcomes[name] for name in ("passed", "failed", "skipped", "error")}
        counts["not run"] = (self.tests or 0) - len(self.begun)
        row: Row = {"tests": self.tests, "counts": counts, "failures": self.failures[:SHOWN]}
        missed = []
        for name, word in (("failed", "failed"), ("error", "ended in errors")):
            if counts[name]:
                which = [short(test) for test, one in self.outcomes.items() if one == name]
                missed.append(f"{counts[name]} {word}: {_some(which)}")
        if self.unfinished:
            missed.append(f"still running when time was up: {_some(self.unfinished)}")
        if counts["not run"]:
            missed.append(f"{counts['not run']} did not run")
        if not self.tests and not missed:
            missed.append("no test ran")
        return {**row, "missed": "; ".join(missed)} if missed else row


def short(test: str) -> str:
    """A test's name without its file."""
    return test.partition("::")[2] or test


def _some(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
