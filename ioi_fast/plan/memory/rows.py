"""How many rows, and how many slots, the tokens of a block of prompts are.

Pure Python, no torch.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rows:
    """Some tokens of some prompts: those of a run, or those at which a rerun can differ."""

    rows: int  # all of them
    prompts: int
    widest: int  # slots of a prompt
    aligned: bool = True  # whether they follow one another from the same token on in all prompts
    at_zero: int = 0  # how many are the first of a prompt

    @classmethod
    def up_to(cls, last: Sequence[int], tokens: int = 0) -> Rows:
        """The tokens up to the last one of each prompt; slots for the longest, or so many."""
        return cls(sum(last) + len(last), len(last), tokens or max(last) + 1)

    @classmethod
    def of(cls, cells: Sequence[Sequence[int]]) -> Rows:
        """From the tokens of each prompt, ascending."""
        first = cells[0][0]
        aligned = all(own[0] == first and own[-1] == first + len(own) - 1 for own in cells)
        zero = sum(own[0] == 0 for own in cells)
        return cls(sum(map(len, cells)), len(cells), max(map(len, cells)), aligned, zero)

    @property
    def slots(self) -> int:
        """Of prompts that are all as wide as the widest."""
        return self.prompts * self.widest

    def differing(self, sites: Collection[str], everywhere: bool) -> float:
        """The share at which attention's output differs when such inputs of heads are overwritten,
        at all of these tokens or at the first one of each prompt."""
        if "v" in sites:
            return 1.0
        if everywhere or "k" in sites:
            # The first token of a prompt sees itself alone, whatever its query and key.
            return 1.0 - self.at_zero / self.rows
        return self.prompts / self.rows

    @property
    def unlike(self) -> bool:
        """Whether some slots are free: rows are then moved to slots and back."""
        return self.slots > self.rows
