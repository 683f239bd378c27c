"""How a plan is cut into blocks of prompts and of senders, so that it fits a memory budget.

Pure Python, no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ioi_fast.work import Prompt

if TYPE_CHECKING:
    from ioi_fast.plan import PathPlan

# Rows of one matrix product in the wave: enough to run at full rate, few enough that the hidden
# layer of the block stays in cache.
ROWS_PER_TILE = 512
# Rows of logits in one product where a metric needs the whole vocabulary, and of those that are
# compared with the base at once: their exponentials take several times the room.
VOCABULARY_ROWS = 64
READING_ROWS = 8
# Tokens of the runs that are in flight at once; more would only cost memory.
TOKENS_PER_BLOCK = 512
_FLOAT = 4


def block_bytes(plan: PathPlan, prompts: Sequence[Prompt], variants: int) -> int:
    """Peak of one block: what is kept, and the larger of its runs, its wave and what follows."""
    config = plan.config
    D, F, n = config.n_embd, config.d_mlp, len(prompts)
    T = max(prompt.last for prompt in prompts) + 1
    cells = sum(plan.cells(p) for p in prompts)
    kept = cells * config.n_layer * (4 * D + F)
    tail = max(plan.after(p) for p in prompts) * n
    if plan.from_layer is not None:
        kept += (config.n_layer - plan.from_layer) * (2 * n * T * D + tail * (3 * D + F))
        kept += (
            variants
            * cells
            * sum(D if r.site == "mlp_in" else config.d_head for r in plan.receivers or ())
        )
    runs = n * T * (2 * 2 * D + 2 * 3 * D + 8 * F) + 8 * n * config.n_head * T * T
    tile = min(variants, tile_variants(cells)) * cells * (4 * D + 5 * F)
    wave = variants * cells * D + tile
    after = 0
    if plan.from_layer is not None:
        together = min(variants, tile_variants(tail))
        width = tail // n
        after = together * (tail * (20 * D + 3 * F) + 6 * n * config.n_head * width * T)
    logits = 0
    if plan.vocabulary:
        rows = min(variants * n, VOCABULARY_ROWS)
        logits = config.vocab_size * (n + rows + 10 * min(rows, READING_ROWS))
    return _FLOAT * (kept + max(runs, wave, after, variants * n * D + logits))


def tile_variants(rows: int) -> int:
    """Whole variants in one tile of a wave; they share the base rows of their prompts."""
    return max(1, ROWS_PER_TILE // rows)


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
        blocks = prompt_blocks(prompts, size)
        return max(block_bytes(plan, [prompts[i] for i in block], width) for block in blocks)

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
