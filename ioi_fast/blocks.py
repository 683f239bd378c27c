"""How a plan is cut into blocks of prompts and of senders, so that it fits a memory budget.

Pure Python, no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ioi_fast import memory_estimate as memory
from ioi_fast.work import Prompt, begun_before

if TYPE_CHECKING:
    from ioi_fast.plan import PathPlan

# Rows of one matrix product in the wave: enough to run at full rate, few enough that the hidden
# layer of the block stays in cache.
ROWS_PER_TILE = 512
# Tokens of the runs that are in flight at once; more would only cost memory.
TOKENS_PER_BLOCK = 512


def block_bytes(plan: PathPlan, prompts: Sequence[Prompt], variants: int) -> int:
    """Peak of one block: what is kept, and the larger of its runs, its wave and what follows."""
    config, n, vocabulary = plan.config, len(prompts), plan.vocabulary
    tokens = n * (max(prompt.end for prompt in prompts) + 1)
    one = memory.one_run(config, tokens)
    if not plan.variants or not prompts[0].live:
        return memory.in_bytes(one, memory.base_logits(config, vocabulary, n))
    D, K, L = config.n_embd, config.d_head, config.n_layer
    new_rows, cells = sum(p.new_rows for p in prompts), sum(plan.cells(p) for p in prompts)
    after, new_layers = memory.Cells.of([plan.after(p) for p in prompts]), plan.new_until[0] + 1

    def kept(layers: int) -> int:
        read = memory.for_waves(config, layers, cells, new_layers)
        if plan.from_layer is None:
            return read
        return read + memory.for_reruns(config, layers, plan.from_layer, tokens, after)

    both = memory.both_runs(config, tokens, new_rows, prompts[0].aligned)
    runs = memory.runs_beside(kept, new_layers, both, one, L)
    everything = kept(L) + memory.base_logits(config, vocabulary, n)
    wave, reads = variants * cells * D, memory.reading(config, vocabulary, variants * n)
    if plan.from_layer is None:
        return memory.in_bytes(runs, everything + wave + reads)
    read = [D if r.site == "mlp_in" else K for r in plan.receivers or ()]
    everything += variants * cells * sum(read)
    layers = {r.node.layer for r in plan.receivers or () if r.site != "mlp_in"}
    begun = max((begun_before(layer, plan.variants) for layer in layers), default=0)
    wave = max(wave, 2 * min(begun, variants) * cells * D)  # the same once more, normalised
    tile = min(variants, tile_variants(after.rows))
    # Beside a tile is what came of those before it, which is then read.
    rerun = variants * n * D + max(
        memory.reruns(config, tile * after.rows, tile * after.slots), reads
    )
    return memory.in_bytes(runs, everything + max(wave, rerun))


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
