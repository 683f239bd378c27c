"""How many rows, and how many slots, the tokens of a block of prompts are.

Pure Python, no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rows:
    """Some tokens of some prompts: those of a run, or those at which a rerun can differ."""

    rows: int  # all of them
    prompts: int
    slots: int  # of prompts that are all as wide as the widest
    aligned: bool  # whether they follow one another from the same token on in all prompts

    @classmethod
    def up_to(cls, lasts: Sequence[int]) -> Rows:
        """The tokens up to the last one of each prompt."""
        return cls.of([range(last + 1) for last in lasts])

    @classmethod
    def of(cls, cells: Sequence[Sequence[int]]) -> Rows:
        """From the tokens of each prompt, ascending."""
        first, widths = cells[0][0], [len(own) for own in cells]
        aligned = all(own[0] == first and own[-1] == first + len(own) - 1 for own in cells)
        return cls(sum(widths), len(cells), len(cells) * max(widths), aligned)

    @property
    def moved(self) -> int:
        """Slots to which rows are moved and back: none where no slot is free."""
        return self.slots if self.slots > self.rows else 0
