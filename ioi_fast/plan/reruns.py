"""What ablations and activation patches ask of reruns, in integers: cells, blocks, FLOPs.

Pure Python, no torch. Both are the same work: sites take other values and all that follows is
recomputed (paper section 6). Variants that change the same up to some layer share it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ioi_fast.asked.nodes import Head
from ioi_fast.asked.sources import SOURCES
from ioi_fast.model.config import GPT2Config
from ioi_fast.plan.blocks import ROWS_OF_RERUNS, TOKENS_OF_RERUNS, PromptBlocks, Sizes
from ioi_fast.plan.flops import FlopCount, run_flops
from ioi_fast.plan.path_plan_base import memory_line
from ioi_fast.plan.rerun_variants import (
    Change,
    RerunPrompt,
    RerunVariant,
    shared_states,
)


@dataclass(frozen=True)
class RerunPlan:
    """Variants in the order in which they begin, over the model or over a circuit."""

    config: GPT2Config
    asked: int  # variants of the call; those that change nothing are not among `variants`
    variants: tuple[RerunVariant, ...]
    names: tuple[str, ...]  # of positions, in the order of RerunPrompt.at
    prompts: tuple[RerunPrompt, ...]
    source: str
    source_rows: int  # tokens of the runs from which values are taken
    forms: int  # groups of prompts with means of their own
    mean_last: tuple[int, ...]  # the last tokens of the prompts that means are over
    roles: Mapping[Head, tuple[str, ...]] | None  # of the circuit that is the base
    vocabulary: int  # tensors of every logit at END that the metric takes, 0 for none
    prompt_blocks: PromptBlocks
    rows_together: int
    peak_bytes: int | None = None  # of memory, where a budget has counted it

    @property
    def first_layer(self) -> int:
        """The first layer in which any variant differs."""
        return self.variants[0].start[0] if self.variants else self.config.n_layer

    @cached_property
    def changes(self) -> dict[tuple[str, int], set[str]]:
        """Positions by (site, layer) at which some variant changes it."""
        found: dict[tuple[str, int], set[str]] = {}
        for variant in self.variants:
            for change in variant.changes:
                found.setdefault((change.site, change.layer), set()).add(change.position)
        return found

    @property
    def sites(self) -> set[tuple[str, int]]:
        """Sites whose new values are needed."""
        circuit = range(0 if self.roles is None else self.config.n_layer)
        return set(self.changes) | {("z", layer) for layer in circuit}

    @property
    def steps(self) -> int:
        """The unit of progress: variants, once for each block of prompts."""
        return len(self.variants) * len(self.prompt_blocks)

    def runs_of_new(self, prompts: Sequence[RerunPrompt]) -> tuple[bool, bool]:
        """Whether the new run of some prompts goes by itself, and whether as a difference.

        By itself where a position stands elsewhere in new, or where the base is a circuit.
        """
        if not SOURCES[self.source].of_new or not self.sites:
            return False, False
        if self.roles is not None:
            return True, False
        moved = {
            any(prompt.at[i] != prompt.at_new[i] for prompt in prompts)
            for i in range(len(self.names))
        }
        return True in moved, False in moved

    def variants_together(self, cells: int) -> int:
        """Variants of one rerun on so many cells."""
        return max(1, self.rows_together // cells)

    def cells(self, prompt: RerunPrompt) -> tuple[int, ...]:
        """Tokens at which a variant can differ from the base, and END.

        Over the model that is all from the first change on. In a circuit heads write nowhere but at
        their roles, so that other tokens differ only where another site is changed, or where z
        takes what new has elsewhere, which is not what the circuit has there.
        """
        everything = range(prompt.end + 1)
        if self.roles is None:
            first = min((max(0, at) for at in prompt.at), default=prompt.end)
            return tuple(everything[min(first, prompt.end) :])
        named = {role for roles in self.roles.values() for role in roles}
        for (site, _), positions in self.changes.items():
            named |= {name for name in positions if site != "z" or self.key(name)}
        tokens = {at for name, at in zip(self.names, prompt.at, strict=True) if name in named}
        return (
            tuple(everything)
            if -1 in tokens
            else tuple(sorted({at for at in tokens if at <= prompt.end} | {prompt.end}))
        )

    @cached_property
    def rows(self) -> list[int]:
        """Rows of the reruns that go through the MLP of each layer."""
        return self._counted[0]

    @cached_property
    def flops(self) -> int:
        """Every product that the definition makes unavoidable, all together."""
        return self.clean_flops + sum(self._counted[1]) + self.readout_flops

    @property
    def clean_flops(self) -> int:
        """Those of the base run and of the sources', which are fp32 in every precision."""
        config, ends = self.config, [prompt.end + 1 for prompt in self.prompts]
        last = config.n_layer - 1
        runs = sum(run_flops(config, n == last, sum(ends), len(ends)) for n in range(last + 1))
        if self.sites and self.source_rows:
            until = max(layer for _, layer in self.sites)
            runs += until * run_flops(config, False, self.source_rows, 0)
            mlp = ("mlp_out", until) in self.sites
            runs += run_flops(config, False, self.source_rows, 0, with_mlp=mlp)
        return runs

    @property
    def readout_flops(self) -> int:
        """Final LayerNorm to logits: one direction a row, or the whole vocabulary at END."""
        rows = (len(self.variants) + 1) * len(self.prompts)
        return 2 * rows * self.config.n_embd * (self.config.vocab_size if self.vocabulary else 1)

    @cached_property
    def _counted(self) -> tuple[list[int], list[int]]:
        """Rows and FLOPs of the reruns by layer; prompts that look alike are counted together."""
        L = self.config.n_layer
        layers, _ = shared_states(self.variants, L)
        rows, flops = [0] * L, [0] * L
        alike = Counter((prompt.end, prompt.at) for prompt in self.prompts)
        for (end, at), count in alike.items():
            counted = FlopCount(
                self.config, end, dict(zip(self.names, at, strict=True)), self.roles
            )
            before = [frozenset[int]()]
            for layer, states in enumerate(layers):
                after = []
                for parent, variant in zip(states.parents, states.variants, strict=True):
                    changes = self.variants[variant].at(layer)
                    step = counted.step(layer, before[parent], changes)
                    after.append(step.cells)
                    rows[layer] += count * step.rows
                    flops[layer] += count * step.flops
                before = after
        return rows, flops

    @property
    def sizes(self) -> Sizes:
        """Prompts of a block, and rows that go together, where memory sets no limit."""
        tokens = max(prompt.last for prompt in self.prompts) + 1
        return max(1, min(len(self.prompts), TOKENS_OF_RERUNS // tokens)), ROWS_OF_RERUNS

    def smaller(self, sizes: Sizes) -> Sizes | None:
        """Half of both; None for one of each."""
        size, rows = sizes
        return None if size == 1 and rows == 1 else ((size + 1) // 2, max(1, rows // 2))

    def cut(self, sizes: Sizes) -> RerunPlan:
        """The same plan in blocks of these sizes."""
        size, rows = sizes
        return replace(self, prompt_blocks=self.prompt_blocks.sized(size), rows_together=rows)

    def key(self, position: str) -> str:
        """Which values at a site a position takes: its own where it stands elsewhere in new."""
        at = self.names.index(position)
        moved = any(prompt.at[at] != prompt.at_new[at] for prompt in self.prompts)
        return position if moved and SOURCES[self.source].of_new else ""

    def live_heads(self, layer: int) -> set[int]:
        """Heads of a layer that can differ once a variant does."""
        if self.roles is None:
            return set(range(self.config.n_head))
        return {head.head for head in self.roles if head.layer == layer}

    def __str__(self) -> str:
        base = "the model" if self.roles is None else f"a circuit of {len(self.roles)} heads"
        states, _ = shared_states(self.variants, self.config.n_layer)
        lines = [
            f"reruns over {base}, source={self.source!r}: {self.asked:,} variants "
            f"({len(self.variants):,} change something), {len(self.prompts)} prompts",
            f"layer {'states':>10} {'rows':>10} {'GFLOP':>10}",
        ]
        for layer, (rows, flops) in enumerate(zip(*self._counted, strict=True)):
            count = len(states[layer].variants) if layer >= self.first_layer else 0
            lines.append(f"{layer:>5} {count:>10,} {rows:>10,} {flops / 1e9:>10.2f}")
        lines += [
            f"floor    {self.flops / 1e9:.2f} GFLOP with both runs: what the definition makes "
            "unavoidable",
            memory_line(
                self.peak_bytes,
                f"{len(self.prompt_blocks)} block(s) of prompts, {self.rows_together} rows at once",
            ),
        ]
        return "\n".join(lines)


def plan_reruns(
    config: GPT2Config,
    prompts: Sequence[RerunPrompt],
    names: Sequence[str],
    variants: Sequence[Sequence[Change]],
    *,
    source: str,
    source_rows: int = 0,
    forms: int = 1,
    mean_last: Sequence[int] = (),
    roles: Mapping[Head, tuple[str, ...]] | None = None,
    vocabulary: int = 0,
) -> RerunPlan:
    """Orders variants, so that those alike at first stand together, in blocks as large as they may
    be."""
    live = [
        RerunVariant(index, tuple(sorted(changes)))
        for index, changes in enumerate(variants)
        if changes
    ]
    live.sort(key=lambda variant: (variant.start, variant.path))
    whole = RerunPlan(
        config=config,
        asked=len(variants),
        variants=tuple(live),
        names=tuple(names),
        prompts=tuple(prompts),
        source=source,
        source_rows=source_rows,
        roles=roles,
        vocabulary=vocabulary,
        forms=forms,
        mean_last=tuple(mean_last),
        prompt_blocks=PromptBlocks.of(prompts, len(prompts)),
        rows_together=ROWS_OF_RERUNS,
    )
    return whole.cut(whole.sizes)
