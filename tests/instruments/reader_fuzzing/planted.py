"""Readers with a fault each, which the limits have to find."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from reader_fuzzing.readers import Reader

SOUND = '{"a": 1}'


def _write(folder: Path) -> None:
    (folder / "file.json").write_text(SOUND)


def _faulty(fault: Callable[[Path], object], late: bool = False) -> Reader:
    """A reader that has a fault where the file is not the sound one, in reading or in using it."""

    def read(folder: Path) -> Path | None:
        if (folder / "file.json").read_bytes() == SOUND.encode():
            return None
        if not late:
            fault(folder)
        return folder

    def use(folder: Path | None) -> None:
        if late and folder is not None:
            fault(folder)

    return Reader(_write, {"file.json": "json"}, read, use)


def _raise(error: BaseException) -> None:
    raise error


def _spin(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def _open(path: str) -> None:
    with open(path):
        pass


def _refuse(folder: Path, text: str = "") -> None:
    raise ValueError(f"{folder}/file.json: {text}")


PLANTED: dict[str, Reader] = {
    "raised KeyError": _faulty(lambda folder: _raise(KeyError("a"))),
    "raised UnicodeDecodeError": _faulty(lambda folder: b"\xff".decode()),
    "read, then raised TypeError": _faulty(lambda folder: _raise(TypeError("a")), late=True),
    "names no file": _faulty(lambda folder: _raise(ValueError("a"))),
    "a message of": _faulty(lambda folder: _refuse(folder, "a" * 3000)),
    "a message with control": _faulty(lambda folder: _refuse(folder, "\x1b[31m")),
    "opened /etc/passwd": _faulty(lambda folder: _open("/etc/passwd")),
    "held": _faulty(lambda folder: bytearray(800 * 2**20)),
    "raised MemoryError": _faulty(lambda folder: bytearray(2**32)),
    "took": _faulty(lambda folder: _spin(5.2)),
    "does not end": _faulty(lambda folder: time.sleep(600)),
    "ended with signal 6": _faulty(lambda folder: os.abort()),
}
