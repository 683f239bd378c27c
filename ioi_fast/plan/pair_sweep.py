"""What a sweep over pairs of heads will do, in integers: variants, rows, blocks and FLOPs.

Pure Python, no torch. Phase one carries every sender once and serves all its receivers; phase two
reruns each (sender, receiver, input) from the receiver's layer on (paper section 9).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ioi_fast.asked.nodes import Head, Sender
from ioi_fast.model.config import GPT2Config
from ioi_fast.plan.blocks import ROWS_OF_PAIRS, TOKENS_OF_PAIRS, PromptBlocks, Sizes
from ioi_fast.plan.flops import run_flops
from ioi_fast.plan.path_plan_base import LayerWork, PathsPlan, rows_table
from ioi_fast.plan.path_variants import PathPrompt, PathVariant


@dataclass(frozen=True, slots=True, kw_only=True)
class PairPlan(PathsPlan):
    """How every pair of heads is swept; prints as a table."""

    inputs: tuple[str, ...]
    rows_together: int

    @property
    def variants(self) -> tuple[PathVariant, ...]:
        """Every head that has a later layer to reach, by layer."""
        L, H = self.config.n_layer, self.config.n_head
        heads = [Head(layer, head) for layer in range(L - 1) for head in range(H)]
        senders = [Sender((head,)) for head in heads]
        return tuple(PathVariant(i, s, s.heads[0].layer + 1) for i, s in enumerate(senders))

    @property
    def from_layer(self) -> int:
        """First layer in which anything follows from a receiver."""
        return 1

    @property
    def new_until(self) -> tuple[int, int]:
        """The last place of the new run that any sender reads."""
        return (max(0, self.config.n_layer - 2), 0)

    def pairs(self, layer: int) -> int:
        """Variants whose receiver stands in a layer."""
        return layer * self.config.n_head**2 * len(self.inputs)

    @property
    def steps(self) -> int:
        """The unit of progress: variants, once for each block of live prompts."""
        live_blocks = sum(self.prompts[block[0]].live for block in self.prompt_blocks)
        return live_blocks * sum(self.pairs(layer) for layer in range(self.config.n_layer))

    def together(self, cells: int) -> int:
        """Variants of one rerun on so many cells."""
        return max(1, self.rows_together // cells)

    def _layer(self, layer: int) -> LayerWork:
        config, live = self.config, self.live
        D, F, K, H = config.n_embd, config.d_mlp, config.d_head, config.n_head
        last = layer == config.n_layer - 1
        orig_rows, new_rows, flops = self.runs(layer)
        cells = sum(self.cells(prompt) for prompt in live)
        wave_rows = 0
        if self.between == "mlps" and not last:
            wave_rows = (layer + 1) * H * cells
        written = 0 if last else H * cells
        read = layer * H * cells * H * len(self.inputs)
        flops += 4 * D * F * wave_rows + 2 * K * D * (written + read)
        after_rows, after_flops = self._after(layer, last)
        return LayerWork(layer, orig_rows, new_rows, wave_rows, after_rows, flops + after_flops)

    def _after(self, layer: int, last: bool) -> tuple[int, int]:
        """Rows and FLOPs of the reruns in a layer: those that begin in it, and earlier ones."""
        config, live = self.config, self.live
        D, F, K = config.n_embd, config.d_mlp, config.d_head
        rows = sum(len(self.after(prompt)) for prompt in live)
        out = len(live) if last else rows
        begun = sum(self.pairs(earlier) for earlier in range(layer))
        flops = begun * run_flops(config, last, rows, len(live))
        # A new query changes its own token alone; a new key or value all tokens from it on.
        own = sum(int(p.at == p.end) if last else self.cells(p) for p in live)
        queries = int("q" in self.inputs)
        first = self.pairs(layer) // len(self.inputs)
        first *= queries * own + (len(self.inputs) - queries) * out
        flops += self.pairs(layer) * out * 2 * K * D + first * 4 * D * F
        return begun * out + first, flops

    @property
    def sizes(self) -> Sizes:
        """Prompts of a block, and rows that go together, where memory sets no limit."""
        return max(1, min(len(self.prompts), TOKENS_OF_PAIRS // self._longest)), ROWS_OF_PAIRS

    def smaller(self, sizes: Sizes) -> Sizes | None:
        """Half the prompts, and of one prompt half the rows; None for one of each."""
        size, rows = sizes
        if size == 1 and rows == 1:
            return None
        size = (size + 1) // 2
        rows = rows // 2 if size == 1 else rows
        return size, 1 if rows <= self._longest else rows

    def cut(self, sizes: Sizes) -> PairPlan:
        """The same plan in blocks of these sizes."""
        size, rows = sizes
        blocks = self.prompt_blocks.sized(size)
        return replace(self, prompt_blocks=blocks, rows_together=rows)

    @property
    def _longest(self) -> int:
        return max(prompt.last for prompt in self.prompts) + 1

    @property
    def read_out(self) -> int:
        """Variants whose answers are read of each prompt."""
        return sum(self.pairs(layer) for layer in range(self.config.n_layer))

    def __str__(self) -> str:
        L, H = self.config.n_layer, self.config.n_head
        pairs = L * (L - 1) // 2 * H * H
        lines = [
            f"pair sweep, between={self.between!r}: {pairs:,} pairs of heads x "
            f"{', '.join(self.inputs)}, {len(self.prompts)} prompts ({len(self.live)} live)",
            *rows_table(self.layers(), after=True),
            *self.totals(f"{len(self.prompt_blocks)} block(s) of prompts"),
        ]
        return "\n".join(lines)


def plan_pairs(
    config: GPT2Config,
    prompts: Sequence[PathPrompt],
    inputs: Sequence[str],
    *,
    everywhere: bool,
    between: str,
    vocabulary: int,
) -> PairPlan:
    """Every pair of heads, in blocks as large as they may be."""
    whole = PairPlan(
        config=config,
        prompts=tuple(prompts),
        inputs=tuple(inputs),
        everywhere=everywhere,
        between=between,
        vocabulary=vocabulary,
        prompt_blocks=PromptBlocks.of(prompts, len(prompts)),
        rows_together=ROWS_OF_PAIRS,
    )
    return whole.cut(whole.sizes)
