"""What surrounds a call while it runs: the number of threads and the progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch


@contextmanager
def threads_set(threads: int | None) -> Iterator[None]:
    """Runs with this many threads of torch and sets the old number back; None leaves it alone.

    Raises ValueError unless threads is a positive integer or None.
    """
    if threads is None:
        yield
        return
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise ValueError(f"threads must be a positive integer or None, got {threads!r}")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def bar(
    total: int, description: str, progress: bool
) -> AbstractContextManager[Callable[[int], None]]:
    """A progress bar whose `advance(k)` counts k of total; silent unless progress is true.

    Raises ImportError naming the extra when a bar is asked for and rich is not installed.
    """
    if not progress:
        return nullcontext(lambda count: None)
    from ioi_fast.report import progress as shown

    return shown.bar(total=total, description=description, enabled=True)
