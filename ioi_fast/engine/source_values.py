"""What overwritten sites take in the fast path: zero, means of clean new runs, or the new run.

Values are absolute and stand where the original prompts' tokens do, [N, T, ...]; the rerun takes
their difference to the base.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ioi_fast.asked.mean_table import MeanTable, groups_of
from ioi_fast.asked.positions import Position
from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.asked.sites import SITES
from ioi_fast.asked.sources import SOURCES
from ioi_fast.engine.clean_run import CleanRun, Grid, LayerState, tiles
from ioi_fast.engine.engine import Engine
from ioi_fast.engine.packed_weights import PackedWeights
from ioi_fast.engine.placement import here, on_host, pairs_here
from ioi_fast.model.config import GPT2Config

Means = Mapping[tuple[str, int], MeanTable]


def clean_run_of_new(engine: Engine, pairs: PromptPairs, T: int | None = None) -> CleanRun:
    """The new prompts as a run of their own, on T tokens (default: those up to the last END)."""
    grid = Grid.of(torch.zeros_like(pairs.new_end), pairs.new_end, T)
    return CleanRun(engine, grid)


def mean_tables(
    engine: Engine,
    pairs: PromptPairs,
    source: str,
    sites: set[tuple[str, int]],
    together: int,
) -> Means:
    """Means of z and mlp_out over clean new runs, for the sites that are asked.

    `together` is how many prompts run at once.
    """
    groups = groups_of(pairs, source)
    ids, last = groups.unique(), max(layer for _, layer in sites)
    T = int(pairs.new_end.max()) + 1
    found: dict[tuple[str, int], MeanTable] = {}
    for some in tiles(len(pairs), together):
        chosen = on_host(range(len(pairs))[some])
        members = pairs_here(pairs, chosen)
        run = clean_run_of_new(engine, members, T)
        for layer, state, _ in run.walk(members.new, last + 1):
            for name in {"z", "mlp_out"}:
                if (name, layer) in sites:
                    value = run.grid.spread(getattr(state, name).flatten(1))
                    table = MeanTable.of(value, members.new_end, here(groups[chosen]), here(ids))
                    before = found.get((name, layer))
                    found[name, layer] = table if before is None else before.joined(table)
                    del value
            del state  # before the next layer's is made
    return found


def site_of(packed: PackedWeights, state: LayerState, site: str, layer: int) -> Tensor:
    """A site of a layer as the run has it: q, k, v [N, T, H, K], all others by rows."""
    if site == "attn_out":
        return packed.linear(layer, "o")(state.z.flatten(1))
    return getattr(state, site)


@dataclass(slots=True, eq=False)
class SourceValues:
    """Values of one layer after another; `step` walks the new run where it is the source."""

    config: GPT2Config
    pairs: PromptPairs
    kind: str
    means: Means | None = None
    new: CleanRun | None = None
    argument: str = "source"  # that errors name
    _walk: Iterator | None = None
    _state: LayerState | None = None

    def step(self) -> None:
        """Goes on to the next layer."""
        if self.new is None:
            return
        if self._walk is None:
            self._walk = self.new.walk(self.pairs.new)
        self._state = None  # before the next layer's is made
        _, self._state, _ = next(self._walk)

    def value(
        self, site: str, layer: int, position: Position, where_NT: Tensor, run: str = "orig"
    ) -> Tensor:
        """What a site takes at a position in the "orig" or "new" run, [N, T, H, K] or [N, T, D].

        `where` are the cells that will be read. Raises ValueError when a mean has no prompt there.
        """
        N, T = where_NT.shape
        if self.means is not None:
            end = self.pairs.end if run == "orig" else self.pairs.new_end
            groups = groups_of(self.pairs, self.kind)
            value = self.means[site, layer].rows(groups, where_NT, end, self.argument)
            return self._by_head(site, value)
        if SOURCES[self.kind].of_new:
            value = self._new_site(site, layer)
            return value if run == "new" else position.aligned(value, T)
        zero = torch.zeros(1, 1, self.config.n_embd, dtype=torch.float32)
        return self._by_head(site, zero.expand(N, T, -1))

    def _new_site(self, site: str, layer: int) -> Tensor:
        value = site_of(self.new.engine.packed, self._state, site, layer)
        if SITES[site].by_slots:
            return value
        return self._by_head(site, self.new.grid.spread(value.flatten(1)))

    def _by_head(self, site: str, value: Tensor) -> Tensor:
        return value.unflatten(-1, (self.config.n_head, -1)) if site == "z" else value
