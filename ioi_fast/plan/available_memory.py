"""How much memory this process may still take, as far as the system says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_CONTROL_GROUPS = Path("/sys/fs/cgroup")


def available_memory() -> int | None:
    """Bytes that are left: of the machine, its control groups and the process's own limit.

    None where the system tells nothing, as outside of Linux.
    """
    return min([*_of_machine(), *_of_control_groups(), *_of_process()], default=None)


def check_available(needed: int, what: str) -> None:
    """Raises ValueError, beginning with what takes them, where so many bytes are not to be had.

    >>> check_available(2**40, "n: 10**9 prompts")    # doctest: +SKIP
    ValueError: n: 10**9 prompts would take some 1,024.0 GiB of memory, and 19.4 GiB are left
    """
    left = available_memory()
    if left is None or needed <= left:
        return
    some = f"some {needed / 2**30:,.1f}" if needed < 2**70 else "more than 2**40"
    raise ValueError(
        f"{what} would take {some} GiB of memory, and {left / 2**30:,.1f} GiB are left"
    )


def _of_machine() -> Iterator[int]:
    rows = _rows(Path("/proc/meminfo"))
    if "MemAvailable:" in rows:
        yield 1024 * (rows["MemAvailable:"] + rows.get("SwapFree:", 0))


def _of_control_groups() -> Iterator[int]:
    """What each group that the process is in leaves it, the pages of files not counted."""
    for line in _text(Path("/proc/self/cgroup")).splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            mount, names = _CONTROL_GROUPS, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            mount = _CONTROL_GROUPS / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        inside = mount / path.lstrip("/")
        for folder in (inside, *inside.parents):
            if not folder.is_relative_to(mount):
                break
            limit, used = (_text(folder / name).strip() for name in names[:2])
            if limit.isdigit() and used.isdigit():
                files = _rows(folder / "memory.stat").get(names[2], 0)
                yield max(0, int(limit) - int(used) + files)


def _of_process() -> Iterator[int]:
    """What `ulimit -v` leaves."""
    try:
        import resource
    except ImportError:
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    pages = _text(Path("/proc/self/statm")).split()
    if limit != resource.RLIM_INFINITY and pages:
        yield max(0, limit - int(pages[0]) * os.sysconf("SC_PAGE_SIZE"))


def _rows(file: Path) -> dict[str, int]:
    """Lines "name number …" of a file."""
    lines = (line.split() for line in _text(file).splitlines())
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
