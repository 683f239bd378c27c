"""How the seconds of a run are divided among its parts; what one leaves, the others have."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

BEGINNING = 10.0  # seconds in which any process begins


@dataclass(frozen=True, slots=True)
class Budget:
    """Until when a run may go on, by time.monotonic."""

    until: float

    @classmethod
    def of(cls, seconds: float) -> Budget:
        """From now on."""
        return cls(time.monotonic() + seconds)

    @property
    def left(self) -> float:
        return max(0.0, self.until - time.monotonic())

    def share(self, part: float, later: Sequence[float]) -> tuple[float, float]:
        """When a part should end and when it has to, as seconds from now, by the weights of the
        part and of those after it.

        It should end with its own share of what is left. Before it is ended it may take half of
        what the others have, and no more than two shares of its own and the time to begin.

        >>> Budget.of(100.0).share(1.0, [1.0])[0] < 51
        True
        """
        left, total = self.left, part + sum(later)
        own = left * part / total
        most = (
            left if not later else min(left * (part + sum(later) / 2) / total, 2 * own + BEGINNING)
        )
        return own, most
