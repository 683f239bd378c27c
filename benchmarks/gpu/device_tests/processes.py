"""Processes that work beside each other on one device: their surroundings, and their ends.

They stay in the group of the process that starts them, so that whatever ends that ends them too.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import torch

_started: list[subprocess.Popen] = []


def surroundings(device: str | None) -> dict[str, str]:
    """Environment of a process whose kernels run on a device; None: in Triton's interpreter."""
    found = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    found["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # what else is installed is not what is tested
    for name in ("TRITON_INTERPRET", "IOI_FAST_TEST_DEVICE", "PYTEST_ADDOPTS", "PYTEST_PLUGINS"):
        found.pop(name, None)
    if device is None:
        return {**found, "TRITON_INTERPRET": "1"}
    # The tests launch kernels on the device that a process has by itself: its first.
    index = torch.device(device).index
    if index:
        seen = found.get("CUDA_VISIBLE_DEVICES", "").split(",")
        found["CUDA_VISIBLE_DEVICES"] = seen[index] if index < len(seen) else str(index)
    return {**found, "IOI_FAST_TEST_DEVICE": torch.device(device).type}


def start(command: Sequence[object], environment: dict[str, str], log: Path) -> subprocess.Popen:
    """Starts a process that says everything into a log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as said:
        process = subprocess.Popen(
            list(map(str, command)),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
    _started.append(process)
    return process


def end(process: subprocess.Popen) -> None:
    """Ends a process, if it has not ended, and all that it started."""
    if process.poll() is not None:
        return
    for one in [process.pid, *descendants(process.pid)]:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(one, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):  # one that waits for a driver
        process.wait(timeout=10)


@atexit.register
def _end_all() -> None:
    for process in _started:
        end(process)


def descendants(root: int) -> list[int]:
    """Processes that a process started, and those that they did; [] where there is no /proc."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            # The name stands in brackets, and may hold any.
            fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    found, left = [], [root]
    while left:
        of_one = children.get(left.pop(), [])
        found += of_one
        left += of_one
    return found


def ending(status: int | None) -> str:
    """A process's exit status in words.

    >>> ending(-6)
    'SIGABRT'
    """
    if status is None:
        return "no end"
    if status >= 0:
        return f"status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def last_lines(log: Path, count: int = 3) -> list[str]:
    """The last lines of a log that say something."""
    text = log.read_text(errors="replace") if log.exists() else ""
    return [line[:300] for line in text.splitlines() if line.strip()][-count:]
