"""Writing a file so that it is either the old one or the complete new one, never a part."""

from __future__ import annotations

import os
from pathlib import Path


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write UTF-8 text to `path`, making its folders; an interrupted call leaves no trace.

    The text goes to a hidden neighbour first, which then takes the name in one step.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return path
