"""What a path patch to the logits will do, in integers: rows, order, blocks, FLOPs and bytes.

Pure Python, no torch. A head or MLP is patched at END while attention is frozen, so a variant lives
at END alone and from its first sender's layer on (paper section 9): at each layer, the wave is the
rows (variant, prompt) of all variants that have begun.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ioi_fast.config import GPT2Config
from ioi_fast.sites import Head, Sender

# Rows of one matrix product in the wave: enough to run at full rate, few enough that the hidden
# layer of the block stays in cache.
ROWS_PER_TILE = 512
# Tokens of the runs that are in flight at once; more would only cost memory.
TOKENS_PER_BLOCK = 2048
_FLOAT = 4


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the plan needs to know of a prompt pair.

    A prompt is live when the position that is patched is its END; it then takes what the new run
    holds at token `new_at`. `first_changed` is the first token that differs, END if none does.
    """

    end: int
    new_at: int
    first_changed: int
    live: bool

    @property
    def aligned(self) -> bool:
        """Whether END matches the same token of new, so that new can run as a difference."""
        return self.end == self.new_at

    @property
    def new_rows(self) -> int:
        """Tokens of the new run to compute: from the first change on, or all of another length."""
        if not self.live:
            return 0
        return self.end + 1 - self.first_changed if self.aligned else self.new_at + 1

    @property
    def last(self) -> int:
        """The last token of either run."""
        return max(self.end, self.new_at) if self.live else self.end


@dataclass(frozen=True, slots=True)
class Variant:
    """One sender of the call and its place in the caller's order."""

    index: int
    sender: Sender

    @property
    def start(self) -> tuple[int, int]:
        """When it becomes live: (layer, 0) before that layer's MLP, (layer, 1) after it."""
        return min((node.layer, 0 if isinstance(node, Head) else 1) for node in self.sender.nodes)

    @property
    def last(self) -> tuple[int, int]:
        """The last place where it takes something from the new run."""
        return max((node.layer, 0 if isinstance(node, Head) else 1) for node in self.sender.nodes)

    def recomputes(self, layer: int) -> bool:
        """Whether its difference goes through the layer's MLP, which is not itself patched."""
        return self.start <= (layer, 0) and all(mlp.layer != layer for mlp in self.sender.mlps)


@dataclass(frozen=True, slots=True)
class LayerWork:
    """Rows and FLOPs of one layer: of the two runs and of the wave."""

    layer: int
    orig_rows: int
    new_rows: int
    wave_rows: int
    flops: int


@dataclass(frozen=True, slots=True)
class PathPlan:
    """How a path patch to the logits is carried out; prints as a table."""

    config: GPT2Config
    prompts: tuple[Prompt, ...]
    variants: tuple[Variant, ...]  # by first layer
    between: str
    vocabulary: bool  # whether the metric needs every logit at END
    prompt_blocks: tuple[tuple[int, ...], ...]  # indices of prompts of like length
    variant_blocks: tuple[range, ...]  # into variants

    @property
    def new_until(self) -> tuple[int, int]:
        """The last place of the new run that any variant reads."""
        return max(variant.last for variant in self.variants)

    @property
    def live(self) -> int:
        """Prompts in which the patched position reaches the logits."""
        return sum(prompt.live for prompt in self.prompts)

    @property
    def steps(self) -> int:
        """Layers that the wave walks in all its blocks: the unit of progress."""
        live_blocks = sum(any(self.prompts[i].live for i in block) for block in self.prompt_blocks)
        starts = [self.variants[block.start].start[0] for block in self.variant_blocks]
        return live_blocks * sum(self.config.n_layer - start for start in starts)

    def active(self, layer: int) -> int:
        """Variants whose difference goes through the MLP of a layer."""
        if self.between == "nothing":
            return 0
        return sum(variant.recomputes(layer) for variant in self.variants)

    def layers(self) -> list[LayerWork]:
        """The work of each layer: every product that the definition makes unavoidable."""
        return [self._layer(layer) for layer in range(self.config.n_layer)]

    def _layer(self, layer: int) -> LayerWork:
        config = self.config
        D, F = config.n_embd, config.d_mlp
        prompts, live, new_rows = self.prompts, self.live, 0
        orig_rows = sum(prompt.end + 1 for prompt in prompts)
        flops = _run_flops(config, layer == config.n_layer - 1, orig_rows, len(prompts))
        last_layer, half = self.new_until
        if layer <= last_layer:
            new_rows = sum(prompt.new_rows for prompt in prompts)
            flops += _run_flops(config, layer == last_layer, new_rows, live, bool(half))
        wave_rows = self.active(layer) * live
        heads = {h for v in self.variants for h in v.sender.heads if h.layer == layer}
        flops += 4 * D * F * wave_rows + 2 * config.d_head * D * len(heads) * live
        return LayerWork(layer, orig_rows, new_rows, wave_rows, flops)

    @property
    def readout_flops(self) -> int:
        """Final LayerNorm to logits: one direction a row, or the whole vocabulary at END."""
        rows = len(self.variants) * self.live + len(self.prompts)
        return 2 * rows * self.config.n_embd * (self.config.vocab_size if self.vocabulary else 1)

    @property
    def flops(self) -> int:
        """All products together."""
        return sum(work.flops for work in self.layers()) + self.readout_flops

    @property
    def peak_bytes(self) -> int:
        """Estimate of the growth of memory during the call, packed weights not counted."""
        variants = max(len(block) for block in self.variant_blocks)
        return max(self._block_bytes(block, variants) for block in self.prompt_blocks)

    def _block_bytes(self, block: tuple[int, ...], variants: int) -> int:
        return block_bytes(self.config, [self.prompts[i] for i in block], variants, self.vocabulary)

    def __str__(self) -> str:
        return "\n".join([self._title(), *self._table(), *self._totals()])

    def _title(self) -> str:
        return (
            f"path patch to the logits, between={self.between!r}: {len(self.variants)} senders, "
            f"{len(self.prompts)} prompts ({self.live} live)"
        )

    def _table(self) -> list[str]:
        head = f"{'layer':>5} {'orig rows':>10} {'new rows':>10} {'wave rows':>10} {'GFLOP':>9}"
        return [head] + [
            f"{work.layer:>5} {work.orig_rows:>10,} {work.new_rows:>10,} {work.wave_rows:>10,} "
            f"{work.flops / 1e9:>9.2f}"
            for work in self.layers()
        ]

    def _totals(self) -> list[str]:
        prompts, variants = len(self.prompt_blocks), len(self.variant_blocks)
        return [
            f"read-out {self.readout_flops / 1e9:.2f} GFLOP "
            f"({'every logit at END' if self.vocabulary else 'answer columns only'})",
            f"floor    {self.flops / 1e9:.2f} GFLOP: what the definition makes unavoidable",
            f"memory   {self.peak_bytes / 2**20:.0f} MiB at the peak, in {prompts} block(s) of "
            f"prompts x {variants} of senders",
        ]


def _run_flops(
    config: GPT2Config, end_only: bool, rows: int, prompts: int, with_mlp: bool = True
) -> int:
    """Products of one layer of a run; the last layer needs only keys and values before END."""
    D, F = config.n_embd, config.d_mlp
    if not end_only:
        return rows * (8 * D * D + 4 * D * F)
    after = 2 * D * D + 4 * D * F if with_mlp else 0
    return rows * 4 * D * D + prompts * (2 * D * D + after)


def block_bytes(
    config: GPT2Config, prompts: Sequence[Prompt], variants: int, vocabulary: bool
) -> int:
    """Peak of one block: the larger of its two runs in flight and of its wave."""
    D, F, n = config.n_embd, config.d_mlp, len(prompts)
    T = max(prompt.last for prompt in prompts) + 1
    kept = n * config.n_layer * (3 * D + F)
    runs = n * T * (2 * 2 * D + 2 * 3 * D + 8 * F) + 8 * n * config.n_head * T * T
    tile = min(variants, tile_variants(n)) * n * (4 * D + 5 * F)
    wave = variants * n * D + tile
    logits = min(variants * n, ROWS_PER_TILE) * config.vocab_size * 4 if vocabulary else 0
    return _FLOAT * (kept + max(runs, wave, variants * n * D + logits))


def tile_variants(prompts: int) -> int:
    """Whole variants in one tile of the wave; they share the base rows of their prompts."""
    return max(1, ROWS_PER_TILE // prompts)


def plan_path_patch(
    config: GPT2Config,
    prompts: Sequence[Prompt],
    senders: Sequence[Sender],
    *,
    between: str,
    vocabulary: bool,
    max_memory: int | None = None,
) -> PathPlan:
    """Orders the senders by first layer and splits prompts and senders to fit the memory.

    Raises ValueError when max_memory is too small for one prompt and one sender.
    """
    variants = sorted(
        (Variant(index, sender) for index, sender in enumerate(senders)),
        key=lambda variant: (variant.start, variant.index),
    )
    size, width = _split(config, prompts, len(variants), vocabulary, max_memory)
    return PathPlan(
        config=config,
        prompts=tuple(prompts),
        variants=tuple(variants),
        between=between,
        vocabulary=vocabulary,
        prompt_blocks=_prompt_blocks(prompts, size),
        variant_blocks=_blocks(len(variants), width),
    )


def _blocks(total: int, size: int) -> tuple[range, ...]:
    return tuple(range(start, min(start + size, total)) for start in range(0, total, size))


def _prompt_blocks(prompts: Sequence[Prompt], size: int) -> tuple[tuple[int, ...], ...]:
    """Blocks of one kind (live or not, aligned or not) and of like length, to pad little.

    The longest come first: what they free is then large enough for all that follow.
    """
    kinds = [(prompt.live, prompt.live and prompt.aligned) for prompt in prompts]
    blocks = []
    for kind in sorted(set(kinds), reverse=True):
        chosen = [i for i in range(len(prompts)) if kinds[i] == kind]
        chosen.sort(key=lambda i: (prompts[i].end, prompts[i].new_at), reverse=True)
        blocks += [tuple(chosen[i] for i in block) for block in _blocks(len(chosen), size)]
    return tuple(blocks)


def _split(
    config: GPT2Config,
    prompts: Sequence[Prompt],
    variants: int,
    vocabulary: bool,
    max_memory: int | None,
) -> tuple[int, int]:
    """Prompts and senders of a block: halves the larger share until the block fits."""
    tokens = max(prompt.last for prompt in prompts) + 1
    size, width = max(1, min(len(prompts), TOKENS_PER_BLOCK // tokens)), variants
    longest = sorted(prompts, key=lambda prompt: prompt.last, reverse=True)

    def needed() -> int:
        return block_bytes(config, longest[:size], width, vocabulary)

    while max_memory is not None and needed() > max_memory:
        if size == 1 and width == 1:
            raise ValueError(
                f"max_memory must be at least {needed()} bytes for one prompt and one sender, "
                f"got {max_memory}"
            )
        if width > 1 and width * size * config.n_embd > tokens * size * config.d_mlp:
            width = (width + 1) // 2
        elif size > 1:
            size = (size + 1) // 2
        else:
            width = (width + 1) // 2
    return size, width
