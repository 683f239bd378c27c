"""Folders where things that are made once are kept: the user's cache, or one that stands in for it.

A home folder may be missing, unwritable or unknown: containers run as users that nobody has made.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

CACHE_VARIABLE = "IOI_FAST_CACHE"


def user_cache() -> Path:
    """The project's folder in the user's cache; raises RuntimeError where no home is to be found.

    A relative XDG_CACHE_HOME is ignored, as its specification asks. No home folder is made.
    """
    named = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(named):
        return Path(named) / "ioi_fast"
    home = os.path.expanduser("~") if os.environ.get("HOME", "unset") else ""
    if not (os.path.isabs(home) and os.path.isdir(home)):
        raise RuntimeError("there is no home folder: set HOME or XDG_CACHE_HOME to a folder")
    return Path(home) / ".cache" / "ioi_fast"


def cache_roots() -> list[Path]:
    """Where kernels may be kept, the first that can be used is: $IOI_FAST_CACHE, the user's cache,
    a folder of this user among the temporary ones. May be empty.
    """
    roots = []
    if chosen := os.environ.get(CACHE_VARIABLE):
        roots.append(Path(os.path.abspath(chosen)))
    with suppress(RuntimeError):
        roots.append(user_cache())
    try:
        user = os.geteuid() if hasattr(os, "geteuid") else "user"
        roots.append(Path(os.path.abspath(tempfile.gettempdir())) / f"ioi_fast-{user}")
    except OSError:  # no temporary folder
        pass
    return roots


def work_folder() -> Path:
    """The first of the folders; raises RuntimeError where there is none."""
    for root in cache_roots():
        return root
    raise RuntimeError(f"there is no cache folder: set {CACHE_VARIABLE} to a folder")
