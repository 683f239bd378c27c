"""Torch's own products of fp32 in fp32, whatever the process allows them, and its settings kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import get_ident

import torch

from ioi_fast.kernels.fork_lock import ForkLock

# Torch has two interfaces to one thing. The older, of one word for all, is in every version, but
# its getter raises where a process used the other, which is of torch 2.9 and says it by backend and
# operation. Of that one torch.backends hands not all levels on, so that its own functions are used.
_get = getattr(torch._C, "_get_fp32_precision_getter", None)
_set = getattr(torch._C, "_set_fp32_precision_setter", None)
_BACKENDS = ("cuda", "mkldnn")  # GPUs, AMD's too, and CPUs


@contextmanager
def fp32_products() -> Iterator[None]:
    """While it is open products of fp32 tensors neither round their operands nor take TF32.

    After it, every setting of either interface is what it was. They are the process's: where calls
    of several threads overlap, the first one sets them and the last one sets them back.
    """
    _HOLDERS.enter()
    try:
        yield
    finally:
        _HOLDERS.leave()


class _Holders:
    """How deep each thread is inside of `fp32_products`, and what was set before the first."""

    def __init__(self) -> None:
        self._lock, self._depth = ForkLock(self._alone), Counter[int]()
        self._before: tuple[dict[str, str], str] | None = None

    def enter(self) -> None:
        with self._lock:
            if not self._depth:
                self._before = _set_fp32()
            self._depth[get_ident()] += 1

    def leave(self) -> None:
        with self._lock:
            self._depth[get_ident()] -= 1
            self._depth += Counter()  # without those at 0
            if not self._depth:
                _set_back(*self._before)

    def _alone(self) -> None:
        """In a forked process, which has the thread alone that forked it."""
        mine, others = self._depth[get_ident()], bool(self._depth)
        self._depth = Counter({get_ident(): mine}) if mine else Counter()
        if others and not mine:
            _set_back(*self._before)


_HOLDERS = _Holders()


def _set_fp32() -> tuple[dict[str, str], str]:
    """Sets it, and gives what was set before."""
    own = {} if _get is None else {backend: _own(backend, "matmul") for backend in _BACKENDS}
    for backend in own:  # with which the older getter does not raise
        _set(backend, "matmul", "ieee")
    older = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    return own, older


def _set_back(own: dict[str, str], older: str) -> None:
    torch.set_float32_matmul_precision(older)
    for backend, precision in own.items():
        _set(backend, "matmul", precision)


@contextmanager
def tf32_products() -> Iterator[None]:
    """Inside of `fp32_products`: a GPU may multiply in TF32. It costs two short calls."""
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")


def _own(backend: str, op: str) -> str:
    """The newer interface's setting itself: "none" where it follows the one above it, whose value
    is what the getter gives."""
    value = _get(backend, op)
    if backend == "generic":
        return value
    above = ("generic", "all") if op == "all" else (backend, "all")
    held = _own(*above)
    _set(*above, "tf32" if value == "ieee" else "ieee")
    follows = _get(backend, op) != value
    _set(*above, held)
    return "none" if follows else value
