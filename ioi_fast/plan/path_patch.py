"""What a path patch will do, in integers: rows, order, blocks and FLOPs.

Pure Python, no torch. While attention is frozen positions do not mix, so in the first phase a
variant lives at the patched cells alone, from its first sender's layer on (paper section 9). From
the receivers on everything is recomputed, on the tokens from the patched one to END.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ioi_fast.asked.nodes import Sender
from ioi_fast.asked.sites import SITES, Receiver, first_reached, place
from ioi_fast.model.config import GPT2Config
from ioi_fast.plan.blocks import TOKENS_PER_BLOCK, Sizes, blocks_of, prompt_blocks
from ioi_fast.plan.memory.room import Room
from ioi_fast.plan.work import Knocked, Prompt, Variant, begun_before, run_flops


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
    vocabulary: int  # tensors of every logit at END that the metric takes, 0 for none
    knocked: tuple[Knocked, ...]
    knock_source: str  # what knocked-out sites take
    forms: int  # groups of prompts with means of their own
    prompt_blocks: tuple[tuple[int, ...], ...]  # indices of prompts of like length
    variant_blocks: tuple[range, ...]  # into variants
    room: Room = field(default_factory=Room)
    peak_bytes: int | None = None  # of memory, where a budget has counted it

    @property
    def new_until(self) -> tuple[int, int]:
        """The last place of the new run that any variant reads before the last receiver."""
        last = (self.config.n_layer, 0)
        if self.receivers is not None:
            last = max(receiver.place for receiver in self.receivers)
        places = [place(node) for variant in self.variants for node in variant.sender.nodes]
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

    def patched(self, prompt: Prompt) -> range:
        """Patched cells of a prompt that can differ."""
        return range(prompt.first_changed if self.everywhere else prompt.at, prompt.at + 1)

    def cells(self, prompt: Prompt) -> int:
        """How many those are."""
        return len(self.patched(prompt))

    def after(self, prompt: Prompt) -> range:
        """Tokens of a prompt on which what follows the receivers is recomputed."""
        return range(prompt.first_changed if self.everywhere else prompt.at, prompt.end + 1)

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
        orig_rows, new_rows, flops = self._runs(layer)
        cells = sum(self.cells(prompt) for prompt in live)
        wave_rows = self.active(layer) * cells
        heads = {h for v in self.variants for h in v.sender.heads if h.layer == layer}
        if layer > self.new_until[0]:
            heads = set()  # written after the last receiver was read
        flops += 4 * D * F * wave_rows + 2 * config.d_head * D * len(heads) * cells
        after_rows, after_flops = self._after(layer)
        return LayerWork(layer, orig_rows, new_rows, wave_rows, after_rows, flops + after_flops)

    def _runs(self, layer: int) -> tuple[int, int, int]:
        """Rows of the original and of the new run in a layer, and the FLOPs of both."""
        config, live = self.config, self._live
        orig_rows = sum(p.end + 1 for p in self.prompts)
        flops = run_flops(config, layer == config.n_layer - 1, orig_rows, len(self.prompts))
        new_rows = sum(p.new_rows for p in live) if live and layer <= self.new_until[0] else 0
        if new_rows:
            at_end = layer == self.new_until[0] and not self.everywhere
            heads_only = layer == self.new_until[0] and not self.new_until[1]
            flops += run_flops(config, at_end, new_rows, len(live), not heads_only)
        return orig_rows, new_rows, flops

    def _after(self, layer: int) -> tuple[int, int]:
        """Rows and FLOPs of the second phase, and of reading the layer's receivers."""
        if self.receivers is None or not self._live:
            return 0, 0
        config, live = self.config, self._live
        D, F, K = config.n_embd, config.d_mlp, config.d_head
        heads = [r for r in self.receivers if r.node.layer == layer and r.of_head]
        cells = sum(self.cells(prompt) for prompt in live)
        flops = 2 * D * K * len(heads) * cells * begun_before(layer, self.variants)
        begun = sum(variant.reaches < layer for variant in self.variants)
        starting = [variant for variant in self.variants if variant.reaches == layer]
        at_end = layer == config.n_layer - 1
        rows = sum(len(self.after(prompt)) for prompt in live)
        out = len(live) if at_end else rows
        flops += begun * run_flops(config, at_end, rows, len(live))
        changed = len({r.node for r in heads})
        # A new query changes its own token alone; a new key or value all tokens from it on.
        spreads = any(SITES[receiver.site].spreads for receiver in heads)
        spread = sum(spreads and variant.start[0] < layer for variant in starting)
        first = spread * out + (len(starting) - spread) * sum(
            self._first_rows(prompt, at_end) for prompt in live
        )
        flops += len(starting) * out * 2 * K * D * changed + first * 4 * D * F
        return begun * out + first, flops

    def _first_rows(self, prompt: Prompt, at_end: bool) -> int:
        return int(prompt.at == prompt.end) if at_end else self.cells(prompt)

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
    def clean_flops(self) -> int:
        """Those of both clean runs, which are fp32 in every precision."""
        return sum(self._runs(layer)[2] for layer in range(self.config.n_layer))

    @property
    def sizes(self) -> Sizes:
        """Prompts and senders of a block, where memory sets no limit."""
        tokens = max(prompt.last for prompt in self.prompts) + 1
        size = max(1, min(len(self.prompts), TOKENS_PER_BLOCK // tokens))
        return size, max(1, len(self.variants))

    def smaller(self, sizes: Sizes) -> Sizes | None:
        """The larger share halved; None for one prompt and one sender."""
        size, width = sizes
        if size == 1 and width == 1:
            return None
        tokens = max(prompt.last for prompt in self.prompts) + 1
        if width > 1 and (size == 1 or width * self.config.n_embd > tokens * self.config.d_mlp):
            return size, (width + 1) // 2
        return (size + 1) // 2, width

    def cut(self, sizes: Sizes) -> PathPlan:
        """The same plan in blocks of these sizes."""
        size, width = sizes
        return replace(
            self,
            prompt_blocks=prompt_blocks(self.prompts, size),
            variant_blocks=blocks_of(len(self.variants), width),
        )

    def __str__(self) -> str:
        table = rows_table(self.layers(), after=self.receivers is not None)
        return "\n".join([self._title(), *table, *self._totals()])

    def _title(self) -> str:
        to = "the logits" if self.receivers is None else ", ".join(map(str, self.receivers))
        reach = "" if self.receivers is None else f" ({len(self.variants)} reach)"
        return (
            f"path patch to {to}, between={self.between!r}: {self.senders} senders{reach}, "
            f"{len(self.prompts)} prompts ({self.live} live)"
        )

    def _totals(self) -> list[str]:
        blocks = f"{len(self.prompt_blocks)} block(s) of prompts x {len(self.variant_blocks)}"
        return [
            f"read-out {self.readout_flops / 1e9:.2f} GFLOP "
            f"({'every logit at END' if self.vocabulary else 'answer columns only'})",
            f"floor    {self.flops / 1e9:.2f} GFLOP: what the definition makes unavoidable",
            memory_line(self.peak_bytes, f"{blocks} of senders"),
        ]


def rows_table(layers: Sequence[LayerWork], after: bool) -> list[str]:
    """Lines of a table of work by layer, with or without what follows receivers."""
    table = [["layer", "orig rows", "new rows", "wave rows", "after rows", "GFLOP"]]
    for work in layers:
        rows = (work.orig_rows, work.new_rows, work.wave_rows, work.after_rows)
        table.append([f"{work.layer}", *(f"{n:,}" for n in rows), f"{work.flops / 1e9:.2f}"])
    if not after:
        table = [[*row[:4], row[5]] for row in table]
    return [" ".join([f"{row[0]:>5}", *(f"{cell:>10}" for cell in row[1:])]) for row in table]


def memory_line(peak_bytes: int | None, blocks: str) -> str:
    """The line of a plan that says how much memory it takes, and in which blocks."""
    peak = "" if peak_bytes is None else f"{peak_bytes / 2**20:.0f} MiB at the peak, "
    return f"memory   {peak}in {blocks}"


def plan_path_patch(
    config: GPT2Config,
    prompts: Sequence[Prompt],
    senders: Sequence[Sender],
    receivers: Sequence[Receiver] | None = None,
    *,
    everywhere: bool = False,
    between: str,
    vocabulary: int,
    knocked: Sequence[Knocked] = (),
    knock_source: str = "zero",
    forms: int = 1,
    room: Room | None = None,
) -> PathPlan:
    """Orders the senders by first layer, in blocks as large as they may be."""
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
        knocked=tuple(knocked),
        knock_source=knock_source,
        forms=forms,
        prompt_blocks=(tuple(range(len(prompts))),),
        variant_blocks=(range(len(variants)),),
        room=room or Room(),
    )
    return whole.cut(whole.sizes)
