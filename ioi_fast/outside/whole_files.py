"""Writing a file so that it is either the old one or the complete new one, never a part."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

# What a trial writes: less than any result, and more than a full disk takes.
_TRIAL = bytes(2**16)


def check_target(path: str | os.PathLike[str]) -> Path:
    """The file that a path means, links followed; raises OSError for what is no plain file.

    Such as a pipe or a device: the name would be taken from it. A file that may not be written is
    not replaced either. Raises ValueError for what can be no name.
    """
    try:
        if b"\0" in os.fsencode(path):
            raise ValueError(f"{os.fspath(path)!r} has a NUL in it, expected the name of a file")
    except UnicodeEncodeError as problem:
        raise ValueError(
            f"{os.fspath(path)!r} can't be the name of a file: {problem.reason}"
        ) from None
    target = Path(os.path.realpath(path))
    if target.is_dir() or os.fspath(path).endswith(os.sep):
        raise IsADirectoryError(f"{path} is a folder, expected the name of a file")
    if target.is_symlink():
        raise OSError(f"{path} is a link that leads back to itself")
    if target.exists() and not target.is_file():
        raise OSError(f"{path} is a pipe or a device, expected the name of a plain file")
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(f"{path} can't be written: it may only be read")
    return target


def try_out(path: str | os.PathLike[str]) -> Path:
    """What `path` means, after a trial of all that `write_text` does but take the name.

    Raises OSError, or ValueError for what can be no name; leaves nothing behind.
    """
    target = check_target(path)
    missing = [folder for folder in target.parents if not folder.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            os.lstat(target)  # too long a name
        with _beside(target) as (_, file):
            file.write(_TRIAL)
            _onto_disk(file)
    except OSError as problem:
        raise OSError(f"{path} can't be written: {problem.strerror or problem}") from problem
    finally:
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()
    return target


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write UTF-8 text to `path`, making its folders; an interrupted call leaves no trace.

    The text goes to a hidden neighbour of a name that nobody can foresee, which then takes the name
    in one step, when it is on the disk. A link stays one, to the new text, and a file keeps its
    mode. Raises OSError for what is no plain file or can't be written.
    """
    content = text.encode("utf-8")
    target = check_target(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _beside(target) as (new, file):
            file.write(content)
            _onto_disk(file)
            with suppress(FileNotFoundError):
                os.chmod(new, stat.S_IMODE(target.stat().st_mode))
            os.replace(new, target)
    except OSError as problem:
        raise OSError(f"{path} was not written: {problem.strerror or problem}") from problem
    _folder_onto_disk(target.parent)
    return Path(path)


@contextmanager
def _beside(target: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A new file beside another: its path, and the file; gone in the end unless renamed."""
    new = target.with_name(f".{os.urandom(8).hex()}.part")
    only_new = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(new, only_new, 0o666)  # by the process's umask, as any file would be
    try:
        with open(descriptor, "wb") as file:
            yield new, file
    finally:
        new.unlink(missing_ok=True)


def _onto_disk(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _folder_onto_disk(folder: Path) -> None:
    """Makes a rename outlast a machine that stops, where the system can."""
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
