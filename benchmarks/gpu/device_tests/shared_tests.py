"""A pytest plugin: several processes share the tests of one file, and tell of each as it ends.

`pytest -p ioi_fast.benchmarks.gpu.device_tests.shared_tests FILE`, with a folder that processes
share in IOI_FAST_SHARED_TESTS and, in IOI_FAST_SHARED_TESTS_FROM, how far into the list this one
begins. A test goes to whoever takes it first. What is told is one line of JSON each: nothing is
lost with a process. Where an error leaves the device unusable the process ends, and others take
what is left.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import pytest

FOLDER, FROM = "IOI_FAST_SHARED_TESTS", "IOI_FAST_SHARED_TESTS_FROM"
LOST = 70  # exit status
LINES = 8  # of a failure


class SharedTests:
    """The hooks of one process."""

    def __init__(self, folder: Path, begin: float) -> None:
        self.folder, self.begin = folder, begin
        self.failed = False  # the test that runs

    def tell(self, **fact: object) -> None:
        """Adds a line to what this process tells."""
        with (self.folder / f"told-{os.getpid()}.jsonl").open("a") as told:
            told.write(json.dumps(fact) + "\n")

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list) -> None:
        # Neighbours need the same tiles: each process compiles those of a stretch of its own.
        first = int(len(items) * self.begin)
        items[:] = items[first:] + items[:first]

    def pytest_collection_finish(self, session) -> None:
        self.tell(tests=len(session.items))

    def pytest_collectreport(self, report) -> None:
        if report.failed:
            self.tell(test=report.nodeid, outcome="error", said=lines(report))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item, nextitem) -> bool | None:
        if not taken(self.folder / "taken", item.nodeid):
            return True  # another process has it
        self.failed = False
        self.tell(begun=item.nodeid)
        return None

    def pytest_runtest_logreport(self, report) -> None:
        if report.outcome == "passed" and report.when != "call":
            return
        outcome = report.outcome
        if outcome == "failed" and report.when != "call":
            outcome = "error"
        self.failed |= report.failed
        said = lines(report) if report.failed else []
        self.tell(test=report.nodeid, outcome=outcome, said=said)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        if self.failed and (problem := lost()):
            self.tell(lost=nodeid, said=problem)
            os._exit(LOST)  # whatever would be freed now would raise again


def taken(folder: Path, nodeid: str) -> bool:
    """Whether a test is this process's own, from now on."""
    name = hashlib.sha256(nodeid.encode()).hexdigest()[:32]
    try:
        (folder / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def lines(report) -> list[str]:
    """What a failure says first."""
    text = [line.rstrip()[:300] for line in str(report.longreprtext).splitlines()]
    text = [line for line in text if line]
    errors = [line.removeprefix("E").strip() for line in text if line.startswith("E ")]
    return errors[:LINES] or text[-LINES:]


def lost() -> str | None:
    """Why the device answers this process no more, or None."""
    torch = sys.modules.get("torch")  # tests that have not asked for it lose no device
    if torch is None or not (torch.cuda.is_available() and torch.cuda.is_initialized()):
        return None
    try:
        torch.cuda.synchronize()
    except RuntimeError as problem:
        return str(problem).splitlines()[0]
    return None


def pytest_configure(config) -> None:
    """Shares tests if a folder is named; where that is not so, pytest is as it always is."""
    folder = os.environ.get(FOLDER)
    if folder:
        hooks = SharedTests(Path(folder), float(os.environ.get(FROM, "0")))
        config.pluginmanager.register(hooks, "ioi_fast_shared_tests")
