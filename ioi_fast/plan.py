"""What a path patch will do, in integers: rows, order, blocks, FLOPs and bytes.

Pure Python, no torch. While attention is frozen positions do not mix, so in the first phase a
variant lives at the patched cells alone, from its first sender's layer on (paper section 9). From
the receivers on everything is recomputed, on the tokens from the patched one to END.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ioi_fast.config import GPT2Config
from ioi_fast.sites import Head, Node, Receiver, Sender

# Rows of one matrix product in the wave: enough to run at full rate, few enough that the hidden
# layer of the block stays in cache.
ROWS_PER_TILE = 512
# Tokens of the runs that are in flight at once; more would only cost memory.
TOKENS_PER_BLOCK = 2048
_FLOAT = 4


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the plan needs to know of a prompt pair.

    at and new_at are the patched token and its match (END where all are patched), first_changed the
    first token that differs, at the latest `at`. A prompt is live if a patch there can matter.
    """

    end: int
    at: int
    new_at: int
    first_changed: int
    live: bool

    @property
    def aligned(self) -> bool:
        """Whether orig and new match token by token, so that new can run as a difference."""
        return self.at == self.new_at

    @property
    def new_rows(self) -> int:
        """Tokens of the new run to compute: from the first change on, or all up to the match."""
        return self.at + 1 - self.first_changed if self.aligned else self.new_at + 1

    @property
    def last(self) -> int:
        """The last token of either run."""
        return max(self.end, self.new_at) if self.live else self.end


@dataclass(frozen=True, slots=True)
class Variant:
    """One sender of the call: its place in the caller's order and its nodes by layer."""

    index: int
    sender: Sender
    reaches: int  # first layer with a receiver that it can reach

    @property
    def start(self) -> tuple[int, int]:
        """When it becomes live: (layer, 0) before that layer's MLP, (layer, 1) after it."""
        return min(_place(node) for node in self.sender.nodes)

    @property
    def last(self) -> tuple[int, int]:
        """The last place where it takes something from the new run."""
        return max(_place(node) for node in self.sender.nodes)

    def recomputes(self, layer: int) -> bool:
        """Whether its difference goes through the layer's MLP, which is not itself patched."""
        return self.start <= (layer, 0) and all(mlp.layer != layer for mlp in self.sender.mlps)


def _place(node: Node) -> tuple[int, int]:
    return (node.layer, 0 if isinstance(node, Head) else 1)


def first_reached(sender: Sender, receivers: Sequence[Receiver] | None, n_layer: int) -> int | None:
    """First layer with a receiver that a sender can reach; None if there is none.

    q, k and v are read before the heads of their layer write, an MLP's input after them.
    """
    if receivers is None:
        return n_layer
    start = min(_place(node) for node in sender.nodes)
    layers = [
        r.node.layer
        for r in receivers
        if start < (r.node.layer, 1 if r.site == "mlp_in" else 0)
        and (r.site == "mlp_in" or start[0] < r.node.layer)
    ]
    return min(layers, default=None)


@dataclass(frozen=True, slots=True)
class LayerWork:
    """Rows and FLOPs of one layer: of the two runs, of the wave, and of what follows receivers."""

    layer: int
    orig_rows: int
    new_rows: int
    wave_rows: int
    after_rows: int
    flops: int


@dataclass(frozen=True, slots=True)
class PathPlan:
    """How a path patch is carried out; prints as a table."""

    config: GPT2Config
    prompts: tuple[Prompt, ...]
    senders: int  # of the call; those that reach no receiver are not among the variants
    variants: tuple[Variant, ...]  # by first layer
    receivers: tuple[Receiver, ...] | None  # None: the logits
    everywhere: bool  # whether every position is patched
    between: str
    vocabulary: bool  # whether the metric needs every logit at END
    prompt_blocks: tuple[tuple[int, ...], ...]  # indices of prompts of like length
    variant_blocks: tuple[range, ...]  # into variants

    @property
    def until(self) -> tuple[int, int]:
        """The last place of the new run that any variant reads before the last receiver."""
        last = (self.config.n_layer, 0)
        if self.receivers is not None:
            last = max((r.node.layer, 1 if r.site == "mlp_in" else 0) for r in self.receivers)
        places = [_place(node) for variant in self.variants for node in variant.sender.nodes]
        return max((place for place in places if place < last), default=(0, 0))

    @property
    def from_layer(self) -> int | None:
        """First layer in which anything follows from a receiver; None for the logits."""
        if self.receivers is None or not self.variants:
            return None
        return min(variant.reaches for variant in self.variants)

    @property
    def live(self) -> int:
        """How many prompts there are in which the patch can matter."""
        return len(self._live)

    @property
    def _live(self) -> list[Prompt]:
        return [prompt for prompt in self.prompts if prompt.live] if self.variants else []

    @property
    def steps(self) -> int:
        """Layers that the waves walk in all their blocks: the unit of progress."""
        live_blocks = sum(any(self.prompts[i].live for i in block) for block in self.prompt_blocks)
        return live_blocks * sum(self._steps(self.variants[b.start]) for b in self.variant_blocks)

    def _steps(self, first: Variant) -> int:
        if self.receivers is None:
            return self.config.n_layer - first.start[0]
        last = max(receiver.node.layer for receiver in self.receivers)
        return last + 1 + self.config.n_layer - first.reaches

    def cells(self, prompt: Prompt) -> int:
        """Patched cells of a prompt that can differ."""
        return prompt.at + 1 - prompt.first_changed if self.everywhere else 1

    def after(self, prompt: Prompt) -> int:
        """Tokens of a prompt on which what follows the receivers is recomputed."""
        return prompt.end + 1 - (prompt.first_changed if self.everywhere else prompt.at)

    def active(self, layer: int) -> int:
        """Variants whose difference goes through the MLP of a layer in the first phase."""
        last = self.config.n_layer
        if self.receivers is not None:
            last = max(receiver.node.layer for receiver in self.receivers)
        if self.between == "nothing" or layer >= last:
            return 0
        return sum(variant.recomputes(layer) for variant in self.variants)

    def layers(self) -> list[LayerWork]:
        """The work of each layer: every product that the definition makes unavoidable."""
        return [self._layer(layer) for layer in range(self.config.n_layer)]

    def _layer(self, layer: int) -> LayerWork:
        config, live = self.config, self._live
        D, F = config.n_embd, config.d_mlp
        orig_rows = sum(p.end + 1 for p in self.prompts)
        flops = _run_flops(config, layer == config.n_layer - 1, orig_rows, len(self.prompts))
        new_rows = sum(p.new_rows for p in live) if live and layer <= self.until[0] else 0
        if new_rows:
            at_end = layer == self.until[0] and not self.everywhere
            heads_only = layer == self.until[0] and not self.until[1]
            flops += _run_flops(config, at_end, new_rows, len(live), not heads_only)
        cells = sum(self.cells(prompt) for prompt in live)
        wave_rows = self.active(layer) * cells
        heads = {h for v in self.variants for h in v.sender.heads if h.layer == layer}
        if layer > self.until[0]:
            heads = set()  # written after the last receiver was read
        flops += 4 * D * F * wave_rows + 2 * config.d_head * D * len(heads) * cells
        after_rows, after_flops = self._after(layer)
        return LayerWork(layer, orig_rows, new_rows, wave_rows, after_rows, flops + after_flops)

    def _after(self, layer: int) -> tuple[int, int]:
        """Rows and FLOPs of the second phase, and of reading the layer's receivers."""
        if self.receivers is None or not self._live:
            return 0, 0
        config, live = self.config, self._live
        D, F, K = config.n_embd, config.d_mlp, config.d_head
        heads = [r for r in self.receivers if r.node.layer == layer and r.site != "mlp_in"]
        cells = sum(self.cells(prompt) for prompt in live)
        flops = 2 * D * K * len(heads) * cells * len(self.variants)
        begun = sum(variant.reaches < layer for variant in self.variants)
        starting = sum(variant.reaches == layer for variant in self.variants)
        at_end = layer == config.n_layer - 1
        rows = sum(self.after(prompt) for prompt in live)
        out = len(live) if at_end else rows
        flops += begun * _run_flops(config, at_end, rows, len(live))
        changed = len({r.node for r in heads})
        flops += starting * out * (2 * K * D * changed + 4 * D * F)
        return (begun + starting) * out, flops

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
        variants = max((len(block) for block in self.variant_blocks), default=1)
        return max(self._block_bytes(block, variants) for block in self.prompt_blocks)

    def _block_bytes(self, block: tuple[int, ...], variants: int) -> int:
        return block_bytes(self, [self.prompts[i] for i in block], variants)

    def __str__(self) -> str:
        return "\n".join([self._title(), *self._table(), *self._totals()])

    def _title(self) -> str:
        to = "the logits" if self.receivers is None else ", ".join(map(str, self.receivers))
        return (
            f"path patch to {to}, between={self.between!r}: {self.senders} senders "
            f"({len(self.variants)} reach), {len(self.prompts)} prompts ({self.live} live)"
        )

    def _table(self) -> list[str]:
        names = ("layer", "orig rows", "new rows", "wave rows", "after rows", "GFLOP")
        widths = (5, 10, 10, 10, 10, 9)
        head = " ".join(f"{name:>{width}}" for name, width in zip(names, widths, strict=True))
        return [head] + [
            f"{work.layer:>5} {work.orig_rows:>10,} {work.new_rows:>10,} {work.wave_rows:>10,} "
            f"{work.after_rows:>10,} {work.flops / 1e9:>9.2f}"
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
    rows = min(variants * n, ROWS_PER_TILE)
    logits = rows * config.vocab_size * 4 if plan.vocabulary else 0
    return _FLOAT * (kept + max(runs, wave, after, variants * n * D + logits))


def tile_variants(rows: int) -> int:
    """Whole variants in one tile of a wave; they share the base rows of their prompts."""
    return max(1, ROWS_PER_TILE // rows)


def plan_path_patch(
    config: GPT2Config,
    prompts: Sequence[Prompt],
    senders: Sequence[Sender],
    receivers: Sequence[Receiver] | None = None,
    *,
    everywhere: bool = False,
    between: str,
    vocabulary: bool,
    max_memory: int | None = None,
) -> PathPlan:
    """Orders the senders by first layer and splits prompts and senders to fit the memory.

    Raises ValueError when max_memory is too small for one prompt and one sender.
    """
    variants = []
    for index, sender in enumerate(senders):
        reaches = first_reached(sender, receivers, config.n_layer)
        if reaches is not None:
            variants.append(Variant(index, sender, reaches))
    variants.sort(key=lambda variant: (variant.start, variant.index))
    whole = PathPlan(
        config=config,
        prompts=tuple(prompts),
        senders=len(senders),
        variants=tuple(variants),
        receivers=None if receivers is None else tuple(receivers),
        everywhere=everywhere,
        between=between,
        vocabulary=vocabulary,
        prompt_blocks=(tuple(range(len(prompts))),),
        variant_blocks=(range(len(variants)),),
    )
    size, width = _split(whole, max_memory)
    return replace(
        whole,
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


def _split(plan: PathPlan, max_memory: int | None) -> tuple[int, int]:
    """Prompts and senders of a block: halves the larger share until the block fits."""
    longest = sorted(plan.prompts, key=lambda prompt: prompt.last, reverse=True)
    tokens = longest[0].last + 1
    size = max(1, min(len(longest), TOKENS_PER_BLOCK // tokens))
    width = max(1, len(plan.variants))

    def needed() -> int:
        return block_bytes(plan, longest[:size], width)

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
