"""A ledger of floats: what tensors hold at a time, and the most that they held at once.

Pure Python, no torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

FLOAT = 4
# Bytes of what is no large tensor: blocks and buffers of kernels and libraries, small tensors.
BESIDE = 5 << 20


@dataclass(slots=True)
class Ledger:
    """Floats that are held, as they come and go.

    >>> ledger = Ledger()
    >>> ledger.passing(3)
    >>> ledger.take(2), ledger.held, ledger.peak
    (2, 2, 3)
    """

    held: int = 0
    peak: int = 0

    def take(self, floats: int) -> int:
        """A tensor comes; its size, to be given back."""
        self.held += floats
        self.peak = max(self.peak, self.held)
        return floats

    def give(self, floats: int) -> None:
        """A tensor goes."""
        self.held -= floats

    def passing(self, floats: int) -> None:
        """Tensors are there for a moment."""
        self.peak = max(self.peak, self.held + floats)

    @contextmanager
    def call(self) -> Iterator[None]:
        """What is taken in it goes at its end, as a function's own tensors do."""
        before = self.held
        yield
        self.held = before

    @property
    def peak_bytes(self) -> int:
        """The peak in bytes, with what is beside large tensors.

        With the C++ kernels that is what the process grows by (kernels/cpu/workspace_ops.cpp);
        room.py has the bounds of other calls.
        """
        return FLOAT * self.peak + BESIDE
