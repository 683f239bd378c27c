"""The compiled library as it is kept: written whole, and read back only as it was written.

Loading a library runs what is in it, and one that is cut off ends the process. So nothing is loaded
but bytes that were checked: the file and the folders above it, up to the cache's root, belong to
this user or to root and nobody else may write them, and the file ends with the SHA-256 of the rest.
Folders are opened one inside the other and files inside an open folder, so that nothing is changed
for something else between a check and its use.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_CHECKSUM = hashlib.sha256().digest_size
# No library of ours is larger: a file of another size is not read into memory.
_LARGEST = 2**28
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
_FOLDER = getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)


class Untrusted(OSError):
    """A file or folder that another user made or can change."""


@contextmanager
def opened(root: Path, inside: Sequence[str], make: bool = False) -> Iterator[int]:
    """The folder root/inside[0]/… as a descriptor, every folder on the way trusted.

    Missing folders are made, for this user alone, if asked. Raises FileNotFoundError where one is
    missing, Untrusted, or another OSError.
    """
    if make:
        root.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            root.mkdir(mode=0o700)
    folder = os.open(root, os.O_RDONLY | _FOLDER)
    try:
        # In a folder like /tmp nobody can take away what is another's.
        _check(folder, root, sticky=True)
        path = root
        for name in inside:
            path = path / name
            if make:
                with suppress(FileExistsError):
                    os.mkdir(name, mode=0o700, dir_fd=folder)
            above = folder
            folder = os.open(name, os.O_RDONLY | _FOLDER | _NO_LINK, dir_fd=above)
            os.close(above)
            _check(folder, path)
        yield folder
    finally:
        os.close(folder)


def _check(descriptor: int, path: Path | str, sticky: bool = False) -> os.stat_result:
    """Raises Untrusted unless what is open is this user's or root's, and no other may write it."""
    found = os.fstat(descriptor)
    if found.st_uid not in (0, os.geteuid()):
        raise Untrusted(f"{path} belongs to user {found.st_uid}")
    if found.st_mode & _OTHERS_MAY_WRITE and not (sticky and found.st_mode & stat.S_ISVTX):
        raise Untrusted(f"{path} can be written by other users (chmod go-w)")
    return found


def read(folder: int, name: str) -> bytes | None:
    """The library of that name in an open folder; None for none, and for one not to be loaded:
    damaged, a link, or a file that another user made or can change.
    """
    # Without waiting for the writer of a pipe that may stand there.
    flags = os.O_RDONLY | _NO_LINK | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        file = os.open(name, flags, dir_fd=folder)
    except OSError:
        return None
    try:
        found = _check(file, name)
        if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST:
            return None
        with open(file, "rb", closefd=False) as kept:
            content = kept.read()
    except OSError:
        return None
    finally:
        os.close(file)
    library, checksum = content[:-_CHECKSUM], content[-_CHECKSUM:]
    return library if library and hashlib.sha256(library).digest() == checksum else None


def keep(folder: int, name: str, library: bytes) -> None:
    """Writes a library and its checksum into an open folder, whole or not at all.

    Both are on the disk before the file has its name: a machine that stops leaves no part of it.
    """
    with _new_file(folder) as (new, file):
        file.write(library + hashlib.sha256(library).digest())
        file.flush()
        os.fsync(file.fileno())
        os.replace(new, name, src_dir_fd=folder, dst_dir_fd=folder)
    with suppress(OSError):  # some file systems have no such thing
        os.fsync(folder)


def try_out(folder: int) -> None:
    """Raises OSError where no file can be made in an open folder."""
    with _new_file(folder):
        pass


@contextmanager
def _new_file(folder: int) -> Iterator[tuple[str, BinaryIO]]:
    """The name of a new file in an open folder, and the file; gone in the end unless renamed."""
    new = f".new-{os.urandom(8).hex()}"
    file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK, 0o600, dir_fd=folder)
    try:
        with open(file, "wb") as written:
            yield new, written
    finally:
        with suppress(OSError):
            os.unlink(new, dir_fd=folder)


def load(library: bytes, kept: Path) -> None:
    """Loads checked bytes from memory, so that what happens to the file meanwhile is all the same.

    Where the system has no files in memory it loads `kept`, which nobody else may write. Raises
    OSError for what can't be loaded.
    """
    try:
        memory = os.memfd_create(kept.name)
    except (AttributeError, OSError):
        ctypes.CDLL(str(kept))
        return
    with open(memory, "wb") as file:
        file.write(library)
        file.flush()
        try:
            ctypes.CDLL(f"/proc/self/fd/{memory}")
        except OSError:  # /proc is not there, or files in memory may not be run
            ctypes.CDLL(str(kept))
