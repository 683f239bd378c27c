"""Blocks of prompts and of senders that go through the layers together.

Pure Python, no torch.
"""

from __future__ import annotations

from collections.abc import Sequence

from ioi_fast.plan.work import Prompt

Sizes = tuple[int, int]  # prompts of a block, and variants or rows that are together
# Tokens of the runs that are in flight at once; more would only cost memory.
TOKENS_PER_BLOCK = 512


def blocks_of(total: int, size: int) -> tuple[range, ...]:
    return tuple(range(start, min(start + size, total)) for start in range(0, total, size))


def prompt_blocks(prompts: Sequence[Prompt], size: int) -> tuple[tuple[int, ...], ...]:
    """Blocks of one kind (live or not, aligned or not) and of like length, to pad little.

    The longest come first: what they free is then large enough for all that follow.
    """
    kinds = [(prompt.live, prompt.live and prompt.aligned) for prompt in prompts]
    blocks = []
    for kind in sorted(set(kinds), reverse=True):
        chosen = [i for i in range(len(prompts)) if kinds[i] == kind]
        chosen.sort(key=lambda i: (prompts[i].end, prompts[i].new_at), reverse=True)
        blocks += [tuple(chosen[i] for i in block) for block in blocks_of(len(chosen), size)]
    return tuple(blocks)
