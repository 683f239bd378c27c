"""Writing a file so that it is either the old one or the complete new one, never a part."""

from __future__ import annotations

import os
from pathlib import Path


def check_target(path: str | os.PathLike[str]) -> Path:
    """The file that a path means, links followed; raises OSError for what is no plain file.

    Such as a pipe or a device: the name would be taken from it.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir() or os.fspath(path).endswith(os.sep):
        raise IsADirectoryError(f"{path} is a folder, expected the name of a file")
    if target.is_symlink():
        raise OSError(f"{path} is a link that leads back to itself")
    if target.exists() and not target.is_file():
        raise OSError(f"{path} is a pipe or a device, expected the name of a plain file")
    return target


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write UTF-8 text to `path`, making its folders; an interrupted call leaves no trace.

    The text goes to a hidden neighbour first, which then takes the name in one step. A link stays
    one, to the new text. Raises OSError for what is no plain file.
    """
    target = check_target(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{os.getpid()}.{target.name[:40]}.part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return Path(path)
