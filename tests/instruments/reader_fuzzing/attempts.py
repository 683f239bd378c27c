"""Many changed files for one reader: drawn by hypothesis, each read by a child process."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings

from reader_fuzzing.edits import Edit, edited_files, edits
from reader_fuzzing.readers import Reader

INSTRUMENTS = Path(__file__).parents[1]


class Child:
    """A process that reads folders, started again where it ended."""

    def __init__(self, name: str, sound: Path, patience: float) -> None:
        """`patience` is the time in seconds after which a child that says nothing is killed."""
        self._command = [sys.executable, "-P", "-m", "reader_fuzzing.child", name, str(sound)]
        self._errors = sound.parent / "child.stderr"
        self._patience = patience
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def read(self, folder: Path) -> tuple[bool, str]:
        """Whether a folder was read, and what was wrong with that."""
        process = self._process or self._start()
        process.stdin.write(f"{folder}\n".encode())
        process.stdin.flush()
        line = self._line(self._patience)
        if line:
            answer = json.loads(line)
            return answer["read"], answer["problem"]
        died = process.poll() is not None or line is not None
        code = process.wait() if died else None
        self._end()
        if not died:
            return False, f"does not end in {self._patience:g} s"
        how = f"signal {-code}" if code < 0 else f"status {code}"
        return False, f"ended with {how}: {self._errors.read_text()[-300:]}"

    def _start(self) -> subprocess.Popen:
        path = ":".join([str(INSTRUMENTS), str(INSTRUMENTS.parents[1])])
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            )
        if self._line(120) != b"ready\n":
            self._end()
            raise AssertionError(f"the reader did not start: {self._errors.read_text()[-3000:]}")
        return self._process

    def _line(self, seconds: float) -> bytes | None:
        """One line of the child; b"" where it ended, None where it said nothing in time."""
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        return self._process.stdout.readline() if ready else None

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                pipe.close()
        self._process = None


@dataclass
class Tally:
    """How many inputs were read or refused as they should, and what was wrong with the others."""

    inputs: int = 0
    read: int = 0
    problems: list[str] = field(default_factory=list)


def fuzz(
    name: str, reader: Reader, inputs: int, seed: int, folder: Path, patience: float = 30
) -> Tally:
    """Tries so many changed files; those with a problem are kept in folders beside.

    The same seed draws the same files.
    """
    sound, tried, tally = folder / "sound", folder / "tried", Tally()
    sound.mkdir(parents=True)
    reader.write(sound)
    shutil.copytree(sound, tried)
    raw = {file: (sound / file).read_bytes() for file in reader.files}
    with Child(name, sound, patience) as child:

        @hypothesis.seed(seed)
        @settings(
            max_examples=inputs,
            database=None,
            deadline=None,
            derandomize=False,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(edits())
        def one(changes: list[Edit]) -> None:
            for file, content in edited_files(raw, reader.files, changes).items():
                (tried / file).write_bytes(content)
            read, problem = child.read(tried)
            tally.inputs += 1
            tally.read += read
            if problem:
                kept = folder / f"problem{len(tally.problems)}"
                shutil.copytree(tried, kept)
                tally.problems.append(f"{name}: {problem} ({kept}; {changes})")
            assert len(tally.problems) < 20, tally.problems

        one()
    return tally
