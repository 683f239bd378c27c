"""The new run as a difference to the original one (always fp32).

It is a rerun of one variant that begins with the embeddings of the tokens that differ, and ends at
the last token that is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.engine.clean_run import Ablated, Grid, LayerState, padded
from ioi_fast.engine.engine import Engine
from ioi_fast.engine.overwrites import Put
from ioi_fast.engine.rerun import LayerRun, Rerun
from ioi_fast.engine.rerun_cells import RerunCells

Both = tuple[Ablated, Ablated]  # what is replaced in the original run and in the new one


@dataclass(slots=True, eq=False)
class NewRun:
    """new − orig, for prompts that match token by token."""

    rerun: Rerun  # its layers hold the present one alone
    grid: Grid  # the cells from the first changed token to the last that is read
    delta: Tensor  # [1, M, D] before the present layer

    @classmethod
    def of(
        cls,
        engine: Engine,
        orig: Grid,
        pairs: PromptPairs,
        first: Tensor,
        last: Tensor,
    ) -> NewRun:
        """Begins with the embeddings on tokens first[n]..last[n]; positions cancel."""
        grid = Grid.of(first, last, orig.T)
        wte = engine.weights.wte
        new, old = (grid.gather(padded(tokens, grid.T)) for tokens in (pairs.new, pairs.orig))
        rerun = Rerun(engine, RerunCells.of_grid(orig, grid), {})
        return cls(rerun, grid, (wte[new] - wte[old])[None])

    def step(
        self,
        layer: int,
        state: LayerState,
        at_end: bool,
        heads_only: bool = False,
        ablated: Both | None = None,
    ) -> dict[str, Tensor]:
        """Goes through a layer: the change of every site there, by rows [M, ...].

        With at_end, from the queries on, for the last token of each prompt alone, [N, ...]; with
        heads_only it ends at z; either is the last step. `ablated` is what both runs replace.
        """
        cells, seen = self.rerun.cells, {}
        rerun = replace(self.rerun, layers={layer: cells.lent(state, at_end)})
        puts = {} if ablated is None else _puts(cells, state, ablated)
        run = LayerRun(rerun, layer, puts, 1, at_end, seen)
        if heads_only:
            run.attended(self.delta)
        else:
            self.delta = run.run(self.delta)
        return {site: change[0] for site, change in seen.items()}

    def at(self, change: Tensor, cells: tuple[Tensor, Tensor]) -> Tensor:
        """A change by the rows of this run, or by its last tokens, at cells (prompt, token)."""
        rows, (prompt, token) = self.grid.cells, cells
        if len(change) != len(rows):
            rows = rows[self.grid.end_rows]
        # Its own tokens are not all there are: of others nothing changes.
        row_of = torch.full((self.grid.N * self.grid.T,), -1)
        row_of[rows] = torch.arange(len(rows))
        row = row_of[prompt * self.grid.T + token]
        out = change.new_zeros(len(row), *change.shape[1:])
        out[row >= 0] = change[row[row >= 0]]
        return out


def _puts(cells: RerunCells, state: LayerState, ablated: Both) -> dict[str, Sequence[Put]]:
    """new − orig of the sites that the original run replaces, the new one or both."""
    puts: dict[str, Sequence[Put]] = {}
    in_orig, in_new = ablated
    for site in {*in_orig, *in_new}:
        used = cells.of_state(state, getattr(state, site))
        here = []
        if site in in_orig:
            # Where new is not replaced as well, its own value differs from what orig has instead.
            shift = cells.of_state(state, state.computed[site]) - used
            where = in_orig[site].where[cells.in_orig]
            if site in in_new:
                where = where & ~in_new[site].where
            here.append(Put(where[None], shift[None], (), added=True))
        if site in in_new:
            here.append(Put(in_new[site].where[None], (in_new[site].value - used)[None], ()))
        puts[site] = here
    return puts
