"""What a path patch will do, in integers: rows, order, blocks and FLOPs.

Pure Python, no torch. While attention is frozen positions do not mix, so in the first phase a
variant lives at the patched cells alone, from its first sender's layer on (paper section 9). From
the receivers on everything is recomputed, on the tokens from the patched one to END.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ioi_fast.asked.nodes import Sender
from ioi_fast.asked.reach import first_reached, place
from ioi_fast.asked.receivers import Receiver
from ioi_fast.asked.sites import SITES
from ioi_fast.model.config import GPT2Config
from ioi_fast.plan.blocks import TOKENS_PER_BLOCK, PromptBlocks, Sizes, blocks_of
from ioi_fast.plan.flops import run_flops
from ioi_fast.plan.path_plan_base import LayerWork, PathsPlan, rows_table
from ioi_fast.plan.path_variants import Knocked, PathPrompt, PathVariant, begun_before


@dataclass(frozen=True, slots=True, kw_only=True)
class PathPlan(PathsPlan):
    """How a path patch is carried out; prints as a table."""

    senders: int  # of the call; those that reach no receiver are not among the variants
    variants: tuple[PathVariant, ...]  # by first layer
    receivers: tuple[Receiver, ...] | None  # None: the logits
    knock_source: str  # what knocked-out sites take
    forms: int  # groups of prompts with means of their own
    variant_blocks: tuple[range, ...]  # into variants

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
    def steps(self) -> int:
        """Layers that the waves walk in all their blocks: the unit of progress."""
        live_blocks = sum(any(self.prompts[i].live for i in block) for block in self.prompt_blocks)
        return live_blocks * sum(self._steps(self.variants[b.start]) for b in self.variant_blocks)

    def _steps(self, first: PathVariant) -> int:
        if self.receivers is None:
            return self.config.n_layer - first.start[0]
        last = max(receiver.node.layer for receiver in self.receivers)
        return last + 1 + self.config.n_layer - first.reaches

    def active(self, layer: int) -> int:
        """Variants whose difference goes through the MLP of a layer in the first phase."""
        last = self.config.n_layer
        if self.receivers is not None:
            last = max(receiver.node.layer for receiver in self.receivers)
        if self.between == "nothing" or layer >= last:
            return 0
        return sum(variant.recomputes(layer) for variant in self.variants)

    def _layer(self, layer: int) -> LayerWork:
        config, live = self.config, self.live
        D, F = config.n_embd, config.d_mlp
        orig_rows, new_rows, flops = self.runs(layer)
        cells = sum(self.cells(prompt) for prompt in live)
        wave_rows = self.active(layer) * cells
        heads = {h for v in self.variants for h in v.sender.heads if h.layer == layer}
        if layer > self.new_until[0]:
            heads = set()  # written after the last receiver was read
        flops += 4 * D * F * wave_rows + 2 * config.d_head * D * len(heads) * cells
        after_rows, after_flops = self._after(layer)
        return LayerWork(layer, orig_rows, new_rows, wave_rows, after_rows, flops + after_flops)

    def _after(self, layer: int) -> tuple[int, int]:
        """Rows and FLOPs of the second phase, and of reading the layer's receivers."""
        if self.receivers is None or not self.live:
            return 0, 0
        config, live = self.config, self.live
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

    def _first_rows(self, prompt: PathPrompt, at_end: bool) -> int:
        return int(prompt.at == prompt.end) if at_end else self.cells(prompt)

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
            prompt_blocks=self.prompt_blocks.sized(size),
            variant_blocks=blocks_of(len(self.variants), width),
        )

    @property
    def read_out(self) -> int:
        """Variants whose answers are read of each prompt."""
        return len(self.variants)

    def __str__(self) -> str:
        table = rows_table(self.layers(), after=self.receivers is not None)
        blocks = f"{len(self.prompt_blocks)} block(s) of prompts x {len(self.variant_blocks)}"
        return "\n".join([self._title(), *table, *self.totals(f"{blocks} of senders")])

    def _title(self) -> str:
        to = "the logits" if self.receivers is None else ", ".join(map(str, self.receivers))
        reach = "" if self.receivers is None else f" ({len(self.variants)} reach)"
        return (
            f"path patch to {to}, between={self.between!r}: {self.senders} senders{reach}, "
            f"{len(self.prompts)} prompts ({len(self.live)} live)"
        )


def plan_path_patch(
    config: GPT2Config,
    prompts: Sequence[PathPrompt],
    senders: Sequence[Sender],
    receivers: Sequence[Receiver] | None = None,
    *,
    everywhere: bool = False,
    between: str,
    vocabulary: int,
    knocked: Sequence[Knocked] = (),
    knock_source: str = "zero",
    forms: int = 1,
) -> PathPlan:
    """Orders the senders by first layer, in blocks as large as they may be."""
    variants = []
    for index, sender in enumerate(senders):
        reaches = first_reached(sender, receivers, config.n_layer)
        if reaches is not None:
            variants.append(PathVariant(index, sender, reaches))
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
        prompt_blocks=PromptBlocks.of(prompts, len(prompts)),
        variant_blocks=(range(len(variants)),),
    )
    return whole.cut(whole.sizes)
