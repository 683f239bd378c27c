"""Progress bars on stderr for work that takes more than two seconds, and nothing otherwise.

The loops of the engine call `advance`; whether anything is drawn is decided here. rich is imported
only when a bar is asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from threading import Timer
from typing import TextIO, TypeVar

from ioi_fast.report.extra import require

Item = TypeVar("Item")
Advance = Callable[..., None]

# Seconds before a bar appears: shorter work needs none.
PATIENCE = 2.0


@contextmanager
def bar(
    *,
    total: int | None,
    description: str,
    enabled: bool,
    patience: float = PATIENCE,
    stream: TextIO | None = None,
) -> Iterator[Advance]:
    """Yield `advance(steps=1)` for a piece of work of `total` steps (None: unknown).

    A bar appears after `patience` seconds, on a terminal only, and is wiped at the end, also after
    an exception or Ctrl-C. Raises ValueError for a negative total, and ImportError when a bar is
    wanted and rich is missing.

    Example: `with bar(total=12, description="layers", enabled=True) as advance: advance()`
    """
    if total is not None and total < 0:
        raise ValueError(f"total: expected at least 0 steps or None, got {total}")
    stream = sys.stderr if stream is None else stream
    if not enabled:
        yield _nothing
        return
    display = _display(stream)
    if not display.console.is_terminal:
        yield _nothing
        return
    task = display.add_task(description, total=total)
    timer = Timer(patience, display.start)
    timer.daemon = True
    timer.start()
    try:
        yield lambda steps=1: display.advance(task, steps)
    finally:
        timer.cancel()
        timer.join()
        if display.live.is_started:
            display.stop()


def progress(work: Iterable[Item] | int, description: str, enabled: bool) -> Iterator[Item]:
    """Iterate over `work`, or over range(work), with a bar beside it when it takes long.

    Example: `for layer in progress(12, "layers", enabled=True): ...`
    """
    items = range(work) if isinstance(work, int) else work
    total = len(items) if isinstance(items, Sized) else None
    with bar(total=total, description=description, enabled=enabled) as advance:
        for item in items:
            yield item
            advance()


def _nothing(steps: int = 1) -> None:
    """The advance of a bar that is not shown."""


def _display(stream: TextIO):
    """A rich progress display, not yet started."""
    console, columns = require("rich.console"), require("rich.progress")
    return columns.Progress(
        columns.TextColumn("{task.description}", markup=False),
        columns.BarColumn(),
        columns.MofNCompleteColumn(),
        columns.TimeElapsedColumn(),
        columns.TextColumn("left"),
        columns.TimeRemainingColumn(),
        console=console.Console(file=stream),
        transient=True,
        # The work may print its own results to a pipe: leave its streams alone.
        redirect_stdout=False,
        redirect_stderr=False,
    )
