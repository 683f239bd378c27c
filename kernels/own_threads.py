"""Torch's number of threads for the calling thread alone."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread

import torch

from ioi_fast.kernels.fork_lock import ForkLock

_LOCK = ForkLock()


def own_threads() -> int:
    """The number of the calling thread. A new one takes torch's when it first asks: here not while
    another thread changes that for a moment."""
    with _LOCK:
        return torch.get_num_threads()


def set_own_threads(threads: int) -> None:
    """Sets the number of the calling thread. Torch sets that of all threads to come as well, so
    that a new thread sets theirs back."""
    with _LOCK:
        of_others = _in_new_thread(torch.get_num_threads)
        torch.set_num_threads(threads)
        _in_new_thread(lambda: torch.set_num_threads(of_others))


def _in_new_thread(ask: Callable[[], object]) -> object:
    answers = []
    thread = Thread(target=lambda: answers.append(ask()))
    thread.start()
    thread.join()
    return answers[0]
