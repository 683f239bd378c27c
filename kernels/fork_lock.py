"""A lock for what a process has but once, such as torch's settings, that lives through a fork.

A process is forked while no other thread holds it: a child has the forking thread alone, and would
wait for ever for one that is not there.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable


class ForkLock:
    """A lock that one thread may take several times; `in_child` runs first in a forked process.

    >>> with ForkLock():
    ...     pass
    """

    __slots__ = ("_in_child", "_lock", "_registered")

    def __init__(self, in_child: Callable[[], None] = lambda: None) -> None:
        self._lock, self._in_child, self._registered = threading.RLock(), in_child, False

    def __enter__(self) -> None:
        # Before it is taken for the first time. Two threads may come here at once, and register it
        # twice: it is then taken twice and given back twice.
        if not self._registered and hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=self._lock.acquire,
                after_in_parent=self._lock.release,
                after_in_child=self._after_in_child,
            )
            self._registered = True
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def _after_in_child(self) -> None:
        try:
            self._in_child()
        finally:
            self._lock.release()
