"""What ablations and activation patches ask of reruns: changes by layer, cells, blocks.

Both are the same work: sites take other values and all that follows is recomputed (section 6).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ioi_fast.ablation_source import check_matches_everywhere
from ioi_fast.blocks import prompt_blocks
from ioi_fast.circuit import Circuit
from ioi_fast.config import GPT2Config
from ioi_fast.interventions import Ablations, ActivationPatch
from ioi_fast.positions import Position
from ioi_fast.prompts import PromptPairs
from ioi_fast.sites import Head, Node, Sender
from ioi_fast.work import Prompt

# Rows of differences that go through the layers together: enough for full speed, few enough to
# stay near the cores.
ROWS_TOGETHER = 1024
# Tokens of a block of prompts, whose layers are all kept.
TOKENS_KEPT = 512
_FLOAT = 4


@dataclass(frozen=True, slots=True)
class Change:
    """One site that takes another value at a position, which stands here by its name."""

    site: str
    layer: int
    head: int | None
    position: str

    @property
    def start(self) -> tuple[int, int]:
        """When a variant with this begins to differ: (layer, 0) before the layer's attention."""
        return (self.layer, 0 if self.site == "resid_pre" else 1)


@dataclass(frozen=True, slots=True)
class RerunVariant:
    """What one variant of the call changes, and its place in the caller's order."""

    index: int
    changes: tuple[Change, ...]

    @property
    def start(self) -> tuple[int, int]:
        """When it begins to differ."""
        return min(change.start for change in self.changes)


@dataclass(frozen=True, eq=False)
class RerunPlan:
    """Variants in the order in which they begin, over the model or over a circuit."""

    config: GPT2Config
    asked: int  # variants of the call; those that change nothing are not among `variants`
    variants: tuple[RerunVariant, ...]
    positions: dict[str, Position]
    source: str
    circuit: Circuit | None
    prompt_blocks: tuple[tuple[int, ...], ...]
    rows_together: int

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
        circuit = range(0 if self.circuit is None else self.config.n_layer)
        return set(self.changes) | {("z", layer) for layer in circuit}

    @property
    def prompts_together(self) -> int:
        """The most prompts of a block."""
        return max(len(block) for block in self.prompt_blocks)

    @property
    def steps(self) -> int:
        """The unit of progress: variants, once for each block of prompts."""
        return len(self.variants) * len(self.prompt_blocks)

    def variants_together(self, cells: int) -> int:
        """Variants of one rerun on so many cells."""
        return max(1, self.rows_together // cells)

    def cells(self, pairs: PromptPairs, positions: dict[str, Position], T: int) -> Tensor:
        """Tokens at which a variant can differ from the base, bool [N, T].

        Over the model that is all from the first change on. In a circuit heads write nowhere but at
        their roles, so that other tokens differ only where an MLP is changed.
        """
        tokens_T = torch.arange(T)
        if self.circuit is None:
            first = pairs.end
            for position in positions.values():
                first = first * 0 if position.everywhere else first.minimum(position.orig)
            return tokens_T >= first[:, None]
        chosen_NT = torch.zeros(len(pairs), T, dtype=torch.bool)
        for role in set(self.circuit.roles.values()):
            chosen_NT |= tokens_T == pairs.positions[role][:, None]
        for (site, _), names in self.changes.items():
            for name in names if site != "z" else ():
                chosen_NT |= positions[name].where(pairs.orig)[:, :T]
        return chosen_NT


def plan_ablations(
    config: GPT2Config, pairs: PromptPairs, ablations: Ablations, max_memory: int | None
) -> RerunPlan:
    """The plan of an `ablate` call; raises ValueError for too small a max_memory."""
    positions = {a.position.name: a.position for v in ablations.variants for a in v}
    variants = [
        tuple(_change(ablation.node, "z", ablation.position.name) for ablation in variant)
        for variant in ablations.variants
    ]
    source, circuit = ablations.source, ablations.circuit
    everywhere = circuit is not None or any(p.everywhere for p in positions.values())
    if source == "new" and everywhere:
        check_matches_everywhere(pairs)
    return _plan(config, pairs, variants, positions, source, circuit, max_memory)


def plan_activation_patch(
    config: GPT2Config, pairs: PromptPairs, patch: ActivationPatch, max_memory: int | None
) -> RerunPlan:
    """The plan of an `activation_patch` call; raises ValueError for too small a max_memory."""
    positions = {position.name: position for _, position in patch.cells}

    def changes(place: Sender | int, name: str) -> tuple[Change, ...]:
        if isinstance(place, int):
            return (Change(patch.site, place, None, name),)
        return tuple(_change(head, patch.site, name) for head in place.nodes)

    variants = [changes(place, position.name) for place, position in patch.cells]
    return _plan(config, pairs, variants, positions, "new", None, max_memory)


def _change(node: Node, site: str, position: str) -> Change:
    if isinstance(node, Head):
        return Change(site, node.layer, node.head, position)
    return Change("mlp_out", node.layer, None, position)


def _plan(
    config: GPT2Config,
    pairs: PromptPairs,
    variants: Sequence[tuple[Change, ...]],
    positions: dict[str, Position],
    source: str,
    circuit: Circuit | None,
    max_memory: int | None,
) -> RerunPlan:
    live = [RerunVariant(index, changes) for index, changes in enumerate(variants) if changes]
    live.sort(key=lambda variant: variant.start)
    ends = [max(pair) for pair in zip(pairs.end.tolist(), pairs.new_end.tolist(), strict=True)]
    prompts = [Prompt(end, end, 0, True) for end in ends]
    tokens, rows = TOKENS_KEPT, ROWS_TOGETHER
    while max_memory is not None:
        size = _together(prompts, tokens)
        needed = _bytes(config, size, max(ends) + 1, rows, source)
        if needed <= max_memory:
            break
        if size == 1 and rows <= max(ends) + 1:
            raise ValueError(
                f"max_memory must be at least {needed} bytes for one prompt and one variant, "
                f"got {max_memory}"
            )
        if size > 1:
            tokens //= 2
        rows = max(rows // 2, max(ends) + 1)
    blocks = prompt_blocks(prompts, _together(prompts, tokens))
    return RerunPlan(config, len(variants), tuple(live), positions, source, circuit, blocks, rows)


def _together(prompts: Sequence[Prompt], tokens: int) -> int:
    return max(1, min(len(prompts), tokens // (max(prompt.end for prompt in prompts) + 1)))


def _bytes(config: GPT2Config, prompts: int, T: int, rows: int, source: str) -> int:
    """Peak of a block: layers kept, values put in place, and a tile of rows."""
    D, F, tokens = config.n_embd, config.d_mlp, prompts * T
    kept = tokens * config.n_layer * (6 * D + F + 2 * D)
    runs = tokens * (12 * D + 2 * F) * (2 if source == "new" else 1)
    tile = rows * (24 * D + 2 * config.n_head * T)
    return _FLOAT * (kept + runs + tile)
