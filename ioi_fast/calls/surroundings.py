"""What surrounds a call while it runs: own settings, threads, and the progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from ioi_fast.kernels.own_threads import own_threads, set_own_threads
from ioi_fast.outside.whole_numbers import whole_number
from ioi_fast.own_settings import own_settings, threads_here

# OpenMP ends the process when it can't start a thread.
_MOST_THREADS = 1024


def check_positive(value: object, argument: str, meaning: str) -> None:
    """Raises TypeError or ValueError unless a value is None or an integer above zero."""
    if value is None:
        return
    number = whole_number(value)
    if number is None:
        raise TypeError(f"{argument} must be {meaning} or None, got {value!r}")
    if number < 1:
        raise ValueError(f"{argument} must be {meaning} above 0 or None, got {number}")


def check_threads(threads: object) -> None:
    """Raises TypeError or ValueError unless threads is None or a number that OpenMP can start."""
    check_positive(threads, "threads", "a number of threads")
    if threads is not None and whole_number(threads) > _MOST_THREADS:
        raise ValueError(f"threads must be at most {_MOST_THREADS}, got {threads}")


@contextmanager
def surroundings(threads: int | None) -> Iterator[None]:
    """Runs with own settings, and with this many threads of torch in the calling thread, which
    afterwards has its old number; other threads keep theirs.

    None leaves the number alone. Raises TypeError or ValueError unless it is None or a positive
    integer.
    """
    check_threads(threads)
    with own_settings():
        before = own_threads()
        asked = before if threads is None else threads_here(int(threads))
        if asked == before:
            yield
            return
        set_own_threads(asked)
        try:
            yield
        finally:
            set_own_threads(before)


def check_progress(progress: object) -> None:
    """Raises TypeError unless progress is True or False."""
    if not isinstance(progress, bool):
        raise TypeError(f"progress must be True or False, got {progress!r}")


def bar(
    total: int, description: str, progress: bool
) -> AbstractContextManager[Callable[[int], None]]:
    """A progress bar whose `advance(k)` counts k of total; silent unless progress is true.

    Raises TypeError unless progress is True or False, and ImportError naming the extra when a bar
    is asked for and rich is not installed.
    """
    check_progress(progress)
    if not progress:
        return nullcontext(lambda count: None)
    from ioi_fast.report import progress as shown

    return shown.bar(total=total, description=description, enabled=True)
