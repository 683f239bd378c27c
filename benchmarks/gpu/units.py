"""The pieces that a part is made of, and the time that each of them may take."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

Row = dict[str, object]


@dataclass(frozen=True, slots=True)
class Allowance:
    """When a unit should have ended, by time.monotonic; what it has begun it may end.

    A short budget takes repeats from a unit, never the unit itself. What has not ended when the
    part has to is lost but for its name.
    """

    until: float
    must: float | None = None

    @property
    def left(self) -> float:
        """Seconds, never below zero."""
        return max(0.0, self.until - time.monotonic())

    @property
    def most(self) -> float:
        """Seconds until the part is ended."""
        return max(0.0, (self.until if self.must is None else self.must) - time.monotonic())

    def repeats(self, seconds: float, most: int, share: float = 1.0) -> int:
        """How many times, 1 to `most`, something of so many seconds fits into a share of it.

        >>> Allowance(until=0.0).repeats(1.0, most=9)
        1
        """
        return max(1, min(most, int(share * self.left / max(seconds, 1e-9))))


@dataclass(frozen=True, slots=True)
class Unit:
    """One row of a part: its name, what makes it, and its share of the part's time."""

    name: str
    run: Callable[[Allowance], Row]
    weight: float = 1.0
    kernels: bool = True  # it needs Triton kernels, which some machines can't launch


def shown(error: float | None) -> str:
    """An error in a table; NaN, which no file of results holds, comes back from one as None.

    >>> shown(3.2e-5), shown(None)
    ('3e-05', 'NaN')
    """
    return "NaN" if error is None else f"{error:.0e}"


def failed(row: Row) -> bool:
    """Whether a row has no finding: it raised, or was left out."""
    return "failed" in row or "left_out" in row


def missed(row: Row) -> bool:
    """Whether what was found is not what is promised."""
    return "missed" in row
