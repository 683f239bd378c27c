"""The products that can't be avoided: of a layer of a run, and of a rerun of one prompt by layers.

Pure Python, no torch. A state is the set of tokens whose residual differs from the base.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ioi_fast.asked.nodes import Head
from ioi_fast.asked.sites import BEFORE, BETWEEN, MLP_OUTPUT, SITES
from ioi_fast.model.config import GPT2Config
from ioi_fast.plan.rerun_variants import Change

Cells = frozenset[int]


@dataclass(frozen=True, slots=True)
class Step:
    """What a layer makes of a state: tokens that differ after it, rows of its MLP, FLOPs."""

    cells: Cells
    rows: int
    flops: int


@dataclass(slots=True)
class FlopCount:
    """Counts a prompt's layers; equal questions are answered once."""

    config: GPT2Config
    end: int
    at: Mapping[str, int]  # token of each position, −1 for all
    roles: (
        Mapping[Head, tuple[str, ...]] | None
    )  # heads that are live in a circuit; None: all, everywhere
    known: dict[tuple, Step] = field(default_factory=dict)

    def step(self, layer: int, cells: Cells, changes: Sequence[Change]) -> Step:
        """One layer, from the tokens that differ before it."""
        key = (layer, cells, tuple(changes))
        if key not in self.known:
            self.known[key] = self._step(layer, cells, changes)
        return self.known[key]

    def _step(self, layer: int, cells: Cells, changes: Sequence[Change]) -> Step:
        D, F, K = self.config.n_embd, self.config.d_mlp, self.config.d_head
        at_end = layer == self.config.n_layer - 1
        cells = cells | self._tokens(changes, BEFORE)
        moved, flops = self._attention(layer, cells, at_end)
        for change in changes:
            site = SITES[change.site]
            if site.of_heads:
                rows = self._of(change)
                rows = self._since(rows) if site.spreads else rows
                rows = rows - moved if cells else rows  # there the head is written already
                flops += 2 * K * D * len(self._needed(rows, at_end))
                moved |= rows
        mid = cells | moved | self._tokens(changes, BETWEEN)
        replaced = self._tokens(changes, MLP_OUTPUT)
        rows = len(self._needed(mid - replaced, at_end))
        return Step(mid | replaced, rows, flops + rows * 4 * D * F)

    def _attention(self, layer: int, cells: Cells, at_end: bool) -> tuple[Cells, int]:
        """Tokens at which the attention's output differs, and the FLOPs of it."""
        D, K = self.config.n_embd, self.config.d_head
        if not cells:
            return frozenset(), 0
        if self.roles is None:
            moved = self._since(cells)
            out = self._needed(moved, at_end)
            asking = self._needed(cells, at_end)
            return moved, len(cells) * 4 * D * D + (len(asking) + len(out)) * 2 * D * D
        moved, flops = set(), 0
        for head, roles in self.roles.items():
            if head.layer != layer:
                continue
            tokens = {self.at[role] for role in roles}
            asking = self._needed(
                frozenset(token for token in tokens if token >= min(cells)), at_end
            )
            if not asking:
                continue
            # Keys and values once for all of the head's queries.
            seen = sum(cell <= max(asking) for cell in cells)
            flops += seen * 4 * D * K + len(asking & cells) * 2 * D * K + len(asking) * 2 * K * D
            moved |= asking
        return frozenset(moved), flops

    def _tokens(self, changes: Iterable[Change], at: int) -> Cells:
        found: Cells = frozenset()
        for change in changes:
            if SITES[change.site].at == at:
                found |= self._of(change)
        return found

    def _of(self, change: Change) -> Cells:
        token = self.at[change.position]
        everything = range(self.end + 1)
        return frozenset(everything if token < 0 else {token} & set(everything))

    def _since(self, cells: Cells) -> Cells:
        return frozenset(range(min(cells), self.end + 1)) if cells else cells

    def _needed(self, cells: Cells, at_end: bool) -> Cells:
        return cells & {self.end} if at_end else cells


def run_flops(
    config: GPT2Config, end_only: bool, rows: int, prompts: int, with_mlp: bool = True
) -> int:
    """Products of one layer of a run; with end_only only keys and values of all its rows."""
    D, F = config.n_embd, config.d_mlp
    after = 2 * D * D + 4 * D * F if with_mlp else 0
    return rows * 4 * D * D + (prompts if end_only else rows) * (2 * D * D + after)
