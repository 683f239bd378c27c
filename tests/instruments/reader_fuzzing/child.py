"""The program that reads: one line in, a folder; one line out, what came of it.

A process of its own, so that what ends a process, hangs or fills the memory is seen from outside.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import sysconfig
import time
import warnings
from pathlib import Path
from typing import Any

from reader_fuzzing.planted import PLANTED
from reader_fuzzing.readers import READERS, Reader

MOST_BYTES = 2**30  # of memory that the process has at once
MOST_SECONDS = 5.0
LONGEST_MESSAGE = 2000  # bytes
_LISTED = ("open", "os.listdir", "os.scandir")
_OF_THE_PROGRAM = ("/proc/", "/sys/", "/dev/urandom", "/dev/null")


class Opened:
    """Remembers files that Python opens outside one folder and the program's own."""

    def __init__(self) -> None:
        self.folder = ""
        self.outside: list[str] = []
        program = [sys.prefix, sys.base_prefix, sysconfig.get_path("stdlib"), *sys.path]
        self._own = tuple(os.path.realpath(path) for path in program if path)
        sys.addaudithook(self._heard)

    def _heard(self, event: str, arguments: tuple) -> None:
        if not self.folder or event not in _LISTED or not isinstance(arguments[0], (str, bytes)):
            return
        path = os.path.abspath(os.fsdecode(arguments[0]))
        folder, self.folder = self.folder, ""  # what looks a path up is not looked at
        if not path.startswith((folder, *self._own, *_OF_THE_PROGRAM)):
            self.outside.append(path)
        self.folder = folder


def problem_of(reader: Reader, folder: Path) -> tuple[bool, str]:
    """Whether the files of a folder were read, and what was wrong with that; empty if nothing."""
    try:
        found = reader.read(folder)
    except (ValueError, OSError) as error:
        return False, _problem_of_error(error, str(folder))
    except BaseException as error:
        return False, f"raised {type(error).__name__}: {str(error)[:300]}"
    try:
        reader.use(found)
    except ValueError as error:
        return True, _problem_of_error(error, "")
    except BaseException as error:
        return True, f"read, then raised {type(error).__name__}: {str(error)[:300]}"
    return True, ""


def _problem_of_error(error: ValueError | OSError, named: str) -> str:
    message = str(error)
    if isinstance(error, ValueError) and type(error) is not ValueError:
        return f"raised {type(error).__name__}: {message[:300]}"
    if len(message.encode("utf-8", "replace")) > LONGEST_MESSAGE:
        return f"a message of {len(message)} characters: {message[:100]}"
    if not message.isprintable():
        return f"a message with control characters: {message[:300]!r}"
    return "" if named in message else f"names no file: {message[:300]}"


def _peak_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def attempt(reader: Reader, folder: Path, opened: Opened) -> dict[str, Any]:
    """One folder read under the limits."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak of memory starts anew
    opened.folder, opened.outside = os.path.realpath(folder), []
    start = time.process_time()
    read, problem = problem_of(reader, folder)
    seconds, opened.folder = time.process_time() - start, ""
    if opened.outside:
        problem = f"opened {opened.outside[0]}"
    elif seconds > MOST_SECONDS:
        problem = f"took {seconds:.1f} s"
    elif _peak_bytes() > MOST_BYTES:
        problem = f"held {_peak_bytes() >> 20} MiB"
    return {"read": read, "problem": problem}


def serve(name: str, sound: Path) -> None:
    """Reads the sound folder, then every folder that a line names."""
    warnings.simplefilter("ignore")
    reader = {**READERS, **PLANTED}[name]
    reader.use(reader.read(sound))
    opened = Opened()
    # What asks for more is told so, and does not take the memory from the rest of the machine.
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MOST_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(attempt(reader, Path(line.rstrip("\n")), opened)), flush=True)


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]))
