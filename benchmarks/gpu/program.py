"""The parts of a run one after another, each in a process of its own: none can end the others.

What a part has written stays, whether it then fails, dies or has no time left.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ioi_fast.benchmarks.gpu import report
from ioi_fast.benchmarks.gpu.budget import Budget
from ioi_fast.benchmarks.gpu.part_files import PartFile
from ioi_fast.benchmarks.gpu.parts import Part
from ioi_fast.benchmarks.gpu.setting import Setting
from ioi_fast.benchmarks.gpu.units import Row, missed

WORKER, TRUTHS = ("ioi_fast.benchmarks.gpu.worker", "ioi_fast.benchmarks.gpu.jobs.truths")
DEATHS = 40  # after so many a part is given up, if it has the time
PATIENCE = 5  # seconds between being asked to end and being ended


def run(setting: Setting, parts: Sequence[Part], seconds: float) -> int:
    """Runs parts and prints what they find; 0 if every row is there and keeps its promise, else 1.

    Raises OSError where nothing can be written, and nothing for what a part does.
    """
    budget = Budget.of(seconds)
    setting.out.mkdir(parents=True, exist_ok=True)
    with Truths(setting) as truths:
        for index, part in enumerate(parts):
            print(f"{part.name}: {part.about}", flush=True)
            later = [other.weight for other in parts[index + 1 :]]
            should, must = budget.share(part.weight, later)
            truths.go_on(beside=part.truths)
            run_one(setting, part, should, must)
    print(report.summary(setting.out, [part.name for part in parts]))
    rows = [row for part in parts for row in PartFile(setting.out / f"{part.name}.json").rows]
    return int(any(wrong(row) for row in rows))


def wrong(row: Row) -> bool:
    """Whether a row is missing, or is not what is promised.

    What a machine lacks is no fault, and no peer has promised anything.
    """
    if row.get("rung", report.OURS[0]) not in report.OURS:
        return False
    return "failed" in row or missed(row) or "no_time" in row


def run_one(setting: Setting, part: Part, should: float, must: float) -> None:
    """One part until every unit has a row, or its time is over."""
    path = setting.out / f"{part.name}.json"
    file = PartFile(path, {"part": part.name, "dry": setting.dry})
    file.write()
    end = Budget.of(must)
    aim = Budget.of(should).until
    for _ in range(DEATHS):
        status, said = in_its_own_process(setting, part, aim, end)
        file = PartFile(path)
        if status == 0 and file.content["units"] and not file.left:
            return
        if status is None:
            return out_of_time(file, must)
        if file.content["running"] is not None or not file.content["units"]:
            name = file.content["running"] or part.name
            end_unit(file, name, {"failed": f"the process ended with status {status}: {said}"})
        if not file.left:
            return
    for name in file.left:
        end_unit(file, name, {"failed": f"the part was given up after {DEATHS} processes"})


def out_of_time(file: PartFile, seconds: float) -> None:
    """Rows for what a part that was ended has not done."""
    running = file.content["running"]
    for name in file.left or [file.content["part"]]:
        why = "was ended" if name == running else "did not begin"
        end_unit(file, name, {"left_out": f"no time: it {why} in {seconds:.0f} s", "no_time": True})


def end_unit(file: PartFile, name: str, row: dict) -> None:
    """A row that the process itself could not write."""
    file.add(name, row)
    text = row.get("failed") or row["left_out"]
    print(f"  {name:<26} {text.splitlines()[0][:300]}", flush=True)


def in_its_own_process(
    setting: Setting, part: Part, aim: float, end_of_part: Budget
) -> tuple[int | None, str]:
    """Its exit status, None if it had to be ended, and the last that it said of errors."""
    log = log_of(setting, part.name)
    arguments = [part.name, part.module, setting.to_json(), str(aim), str(end_of_part.until)]
    with log.open("w") as errors:
        process = started(setting, WORKER, arguments, errors)
        try:
            status = process.wait(timeout=max(1.0, end_of_part.left))
        except subprocess.TimeoutExpired:
            status = None
        finally:
            end(process)
    return status, last_line(log.read_text(errors="replace"))


def log_of(setting: Setting, name: str) -> Path:
    """Where a process's errors go."""
    folder = setting.work / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.txt"


def started(setting: Setting, module: str, arguments: list[str], errors) -> subprocess.Popen:
    """A process with a group of its own, so that what it starts ends with it."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    environment.pop("TRITON_INTERPRET", None)
    if setting.dry:
        environment["TRITON_INTERPRET"] = "1"
    # A safe path: "python -m" would put the folder it is called from in front of packages.
    command = [sys.executable, "-P", "-m", module, *arguments]
    return subprocess.Popen(command, stderr=errors, env=environment, start_new_session=True)


def end(process: subprocess.Popen) -> None:
    """Ends a process and all that it started, if it has not ended."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, how)
            process.wait(timeout=PATIENCE)
        except (ProcessLookupError, PermissionError):
            break
        except subprocess.TimeoutExpired:  # in the end one that waits for a driver
            continue
    process.poll()


def last_line(text: str) -> str:
    """The last line that says something."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1][:400] if lines else "it said nothing"


class Truths:
    """The truths that later parts need, computed on the host while parts run that it does not time.

    What is not done by then the part that needs it does itself.
    """

    def __init__(self, setting: Setting) -> None:
        self._setting, self._process = setting, None

    def go_on(self, beside: bool) -> None:
        """Begins with the first part that they may stand beside, ends with one they may not."""
        if beside and self._process is None:
            with log_of(self._setting, "truths").open("w") as errors:
                arguments = [self._setting.to_json()]
                self._process = started(self._setting, TRUTHS, arguments, errors)
        elif not beside and self._process is not None:
            end(self._process)

    def __enter__(self) -> Truths:
        return self

    def __exit__(self, *problem: object) -> None:
        if self._process is not None:
            end(self._process)
