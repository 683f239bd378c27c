"""How a plan is cut into blocks of prompts and of senders, so that it fits a memory budget.

Pure Python, no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ioi_fast import memory_estimate as memory
from ioi_fast.config import GPT2Config
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
    tokens = memory.Tokens.of([prompt.end for prompt in prompts])
    one, knocked = memory.one_run(config, tokens), memory.knocked_out(config, tokens.rows)
    if plan.knocked_by_new:
        one += memory.one_run(config, memory.Tokens.of([prompt.last for prompt in prompts]))
    if not plan.variants or not prompts[0].live:
        most = one + (knocked if plan.knocked else 0)
        return memory.in_bytes(most, memory.base_logits(config, vocabulary, n))
    D, K, L = config.n_embd, config.d_head, config.n_layer
    cells = sum(plan.cells(prompt) for prompt in prompts)
    after, new_layers = memory.Cells.of([plan.after(p) for p in prompts]), plan.new_until[0] + 1

    def kept(layers: int) -> int:
        read = memory.for_waves(config, layers, cells, new_layers)
        if plan.from_layer is None:
            return read
        return read + memory.for_reruns(config, layers, plan.from_layer, tokens.slots, after)

    both = one + new_run(config, prompts)
    # Where each prompt has one cell, new ends with a layer at that cell alone.
    whole_layers = new_layers if plan.everywhere else new_layers - 1
    runs = memory.runs_beside(kept, whole_layers, both if whole_layers else one, one, L)
    in_new = memory.knocked_in_new(config, new_tokens(prompts), prompts[0].aligned)
    for layer in plan.knocked:
        most = both + in_new if layer < whole_layers else one
        runs = max(runs, kept(min(layer + 1, L - 1)) + most + knocked)
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
    rerun = variants * n * D + max(memory.reruns(config, after, tile, tile, at_end=False), reads)
    return memory.in_bytes(runs, everything + max(wave, rerun))


def new_run(config: GPT2Config, prompts: Sequence[Prompt]) -> int:
    """A layer of the new run of a block: a difference where tokens match, else a run by itself."""
    layer = memory.new_beside if prompts[0].aligned else memory.one_run
    return layer(config, new_tokens(prompts))


def new_tokens(prompts: Sequence[Prompt]) -> memory.Tokens:
    """The tokens of a block that new runs through: from the first change on, or all."""
    return memory.Tokens.of([prompt.new_rows - 1 for prompt in prompts])


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
