"""How a plan is cut into blocks of prompts and of senders, so that it fits a memory budget.

Pure Python, no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ioi_fast.plan.memory import path_patches
from ioi_fast.plan.work import Prompt

if TYPE_CHECKING:
    from ioi_fast.plan.path_patch import PathPlan

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


def split(plan: PathPlan, max_memory: int | None) -> tuple[int, int]:
    """Prompts and senders of a block: halves the larger share until the block fits."""
    prompts = plan.prompts
    tokens = max(prompt.last for prompt in prompts) + 1
    size = max(1, min(len(prompts), TOKENS_PER_BLOCK // tokens))
    width = max(1, len(plan.variants))

    def needed() -> int:
        blocks = {tuple(prompts[i] for i in block) for block in prompt_blocks(prompts, size)}
        return max(path_patches.of_block(plan, block, width) for block in blocks)

    while max_memory is not None and needed() > max_memory:
        if size == 1 and width == 1:
            raise ValueError(
                f"max_memory must be at least {needed()} bytes for one prompt and one sender, "
                f"got {max_memory}"
            )
        if width > 1 and (size == 1 or width * plan.config.n_embd > tokens * plan.config.d_mlp):
            width = (width + 1) // 2
        else:
            size = (size + 1) // 2
    return size, width
