"""Blocks of prompts and of senders that go through the layers together.

Pure Python, no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ioi_fast.plan.path_variants import ROWS_PER_TILE, PathPrompt
from ioi_fast.plan.rerun_variants import RerunPrompt

Sizes = tuple[int, int]  # prompts of a block, and variants or rows that are together
# How large blocks are where memory has no limit (fit_to_memory.py makes them smaller).
# Tokens of the runs that are in flight at once; more would only cost memory.
TOKENS_PER_BLOCK = 512
# The same of a sweep over pairs, which keeps every sender's difference for them, and of reruns,
# which keep all their layers.
TOKENS_OF_PAIRS, TOKENS_OF_RERUNS = 256, 512
# Rows of differences that go through the layers together: enough for full speed and for variants to
# share their first layers, few enough to stay near the cores.
ROWS_OF_PAIRS, ROWS_OF_RERUNS = 2 * ROWS_PER_TILE, 2048


@dataclass(frozen=True, slots=True)
class PromptBlocks:
    """Blocks of one kind of prompts and of like length, as indices.

    They are cut when they are asked for: a call of many prompts in blocks of one holds no list of
    them.

    >>> list(PromptBlocks(((3, 0, 1), (2,)), size=2))
    [(3, 0), (1,), (2,)]
    """

    kinds: tuple[tuple[int, ...], ...]
    size: int

    @classmethod
    def of(cls, prompts: Sequence[PathPrompt | RerunPrompt], size: int) -> PromptBlocks:
        """The longest come first, to pad little: what they free is then large enough for all that
        follow."""
        by_kind: dict[tuple[bool, ...], list[int]] = {}
        for index, prompt in enumerate(prompts):
            by_kind.setdefault(prompt.kind, []).append(index)
        for chosen in by_kind.values():
            chosen.sort(key=lambda index: prompts[index].length, reverse=True)
        kinds = sorted(by_kind, reverse=True)
        return cls(tuple(tuple(by_kind[kind]) for kind in kinds), size)

    def sized(self, size: int) -> PromptBlocks:
        """The same prompts in blocks of another size."""
        return replace(self, size=size)

    @property
    def largest(self) -> int:
        """The most prompts of a block."""
        return min(self.size, max(map(len, self.kinds)))

    def __len__(self) -> int:
        return sum(len(blocks_of(len(chosen), self.size)) for chosen in self.kinds)

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        for chosen in self.kinds:
            for start in range(0, len(chosen), self.size):
                yield chosen[start : start + self.size]


def blocks_of(total: int, size: int) -> tuple[range, ...]:
    return tuple(range(start, min(start + size, total)) for start in range(0, total, size))
