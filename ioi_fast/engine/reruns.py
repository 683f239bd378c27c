"""The fast path of ablations and activation patches: both runs, then reruns of many variants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ioi_fast.asked.circuit import Circuit
from ioi_fast.asked.metrics import Metric
from ioi_fast.asked.positions import Position
from ioi_fast.asked.prompts import PromptPairs, first_changed
from ioi_fast.asked.sites import BEFORE, SITES
from ioi_fast.asked.sources import SOURCES
from ioi_fast.engine.clean_run import Ablated, CleanRun, Grid, LayerState, Replaced, tiles
from ioi_fast.engine.engine import Engine
from ioi_fast.engine.new_run import NewRun
from ioi_fast.engine.overwrites import Put, Site
from ioi_fast.engine.placement import blocks_here, on_host, position_here
from ioi_fast.engine.readout import read_out
from ioi_fast.engine.rerun import Rerun
from ioi_fast.engine.rerun_cells import LayerBase, RerunCells
from ioi_fast.engine.source_values import (
    Means,
    SourceValues,
    clean_run_of_new,
    mean_tables,
    site_of,
)
from ioi_fast.plan.rerun_variants import RerunVariant, shared_states
from ioi_fast.plan.reruns_of_asked import Asked
from ioi_fast.results.outcome import Advance, Outcome

# Values of a site at the cells, less the base's own, by (site, layer, key): the key is "" where
# token t takes what token t of new has, else the name of a position that stands elsewhere in new.
Values = dict[tuple[str, int, str], Tensor]
EVERYWHERE = Position("all", None, None)


@torch.no_grad()
def run(
    engine: Engine,
    pairs: PromptPairs,
    mean_pairs: PromptPairs,
    asked: Asked,
    metric: Metric,
    advance: Advance,
) -> Outcome:
    """Base metric [N] and change of each variant [P, N], in the caller's order."""
    plan = asked.plan
    exact = engine.exact
    base = torch.empty(len(pairs), dtype=torch.float32, device="cpu")
    values = torch.zeros(plan.asked, len(pairs), dtype=torch.float32, device="cpu")
    means = None
    if SOURCES[plan.source].of_means and plan.sites:
        together = plan.prompt_blocks.largest
        means = mean_tables(exact, mean_pairs, plan.source, plan.sites, together)
    for _, chosen, members in blocks_here(pairs, plan.prompt_blocks):
        ready = _Ready.of(engine, asked, members, chosen, means)
        values_N, change = read_out(exact, members, chosen, metric, ready.final)
        base[chosen] = values_N.cpu()
        together = plan.variants_together(len(ready.cells.in_orig))
        for tile in tiles(len(plan.variants), together):
            some = plan.variants[tile]
            states, of_variant = shared_states(some, engine.config.n_layer)
            starts = [variant.start for variant in some]
            delta = ready.rerun.run(ready.puts(some), starts, states)[of_variant]
            rows = on_host([variant.index for variant in some])
            values[rows[:, None], chosen] = change(delta).cpu()
            advance(len(some))
        del ready, change
    return Outcome(base, values)


@dataclass(frozen=True, slots=True, eq=False)
class _Ready:
    """The runs of a block of prompts, and the differences that variants put in place."""

    rerun: Rerun
    places: Places
    values: Values
    frozen: dict[int, Tensor]  # [M, H] heads that a circuit leaves ablated
    final: Tensor  # [N, D] of the base

    @property
    def cells(self) -> RerunCells:
        return self.rerun.cells

    @classmethod
    def of(
        cls,
        engine: Engine,
        asked: Asked,
        pairs: PromptPairs,
        chosen: Tensor,
        means: Means | None,
    ) -> _Ready:
        plan, circuit = asked.plan, asked.circuit
        grid = Grid.of(torch.zeros_like(pairs.end), pairs.end)
        exact = engine.exact
        orig = CleanRun(exact, grid)
        positions = {name: position_here(one, chosen) for name, one in asked.positions.items()}
        prompts = [plan.prompts[index] for index in chosen.tolist()]
        cells = RerunCells.of_cells(grid, [plan.cells(prompt) for prompt in prompts])
        places = Places.of(positions, pairs, cells, plan.source)
        new, difference = None, None
        apart, beside = plan.runs_of_new(prompts)
        if apart:
            new = clean_run_of_new(exact, pairs)
        if beside:
            difference = _new_run(exact, grid, pairs)
        sources = SourceValues(engine.config, pairs, plan.source, means, new)
        walk = _Walk(exact, asked, orig, cells, sources, places, difference)
        final = walk.run(pairs.orig)
        live = None
        if circuit is not None:
            live = {layer: _live_heads(circuit, layer) for layer in walk.layers}
        rerun = Rerun(engine, cells, walk.layers, live)
        return cls(rerun, places, walk.values, walk.frozen, final)

    def puts(self, variants: Sequence[RerunVariant]) -> dict[Site, list[Put]]:
        """What these variants overwrite, and before it what a circuit keeps ablated."""
        puts: dict[Site, list[Put]] = {}
        for layer, frozen_MH in self.frozen.items():
            puts["z", layer] = [Put(frozen_MH[None], None, ())]
        for (site, layer, key), mask in self._masks(variants).items():
            heads = None
            if mask.dim() == 3:
                heads = tuple(mask.flatten(0, 1).any(0).nonzero().flatten().tolist())
            put = Put(mask, self.values[site, layer, key][None], heads)
            puts.setdefault((site, layer), []).append(put)
        return puts

    def _masks(self, variants: Sequence[RerunVariant]) -> dict[tuple[str, int, str], Tensor]:
        """Where each site of each layer is overwritten, [P, M] or [P, M, H]."""
        M, H = len(self.cells.in_orig), self.rerun.engine.config.n_head
        masks: dict[tuple[str, int, str], Tensor] = {}
        for row, variant in enumerate(variants):
            for change in variant.changes:
                key = (change.site, change.layer, self.places.key[change.position])
                shape = (len(variants), M) if change.head < 0 else (len(variants), M, H)
                mask = masks.setdefault(key, torch.zeros(shape, dtype=torch.bool))
                own = mask[row] if change.head < 0 else mask[row, :, change.head]
                own |= self.places.cells[change.position]
        return masks


def _live_heads(circuit: Circuit, layer: int) -> list[int]:
    return [head.head for head in circuit.roles if head.layer == layer]


def _new_run(engine: Engine, grid: Grid, pairs: PromptPairs) -> NewRun:
    """The new run as a difference, from the first token of each prompt that differs to END."""
    first = first_changed(pairs)
    return NewRun.of(engine, grid, pairs, first, grid.end)


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Positions of a call for a block of prompts."""

    positions: dict[str, Position]
    cells: dict[str, Tensor]  # [M] bool
    key: dict[str, str]  # which of the values at a site are meant

    @classmethod
    def of(
        cls,
        positions: dict[str, Position],
        pairs: PromptPairs,
        cells: RerunCells,
        source: str,
    ) -> Places:
        """Which cells of the rerun they are, and which of them stand elsewhere in new."""
        chosen, key = {}, {}
        for name, position in positions.items():
            chosen[name] = position.where(pairs.orig)[cells.prompt, cells.token]
            moved = not position.everywhere and not torch.equal(position.orig, position.new)
            key[name] = name if moved and SOURCES[source].of_new else ""
        return cls(positions, chosen, key)


class _Walk:
    """Walks the base run, and the new one beside it, and keeps what reruns read."""

    def __init__(
        self,
        engine: Engine,
        asked: Asked,
        orig: CleanRun,
        cells: RerunCells,
        sources: SourceValues,
        places: Places,
        difference: NewRun | None,
    ) -> None:
        self._difference, self._new = difference, {}
        self._engine, self._plan, self._orig = engine, asked.plan, orig
        self._circuit = asked.circuit
        self._cells, self._sources, self._places = cells, sources, places
        self.layers: dict[int, LayerBase] = {}
        self.values: Values = {}
        self.frozen: dict[int, Tensor] = {}

    def run(self, tokens: Tensor) -> Tensor:
        """The final residual of the base at END, [N, D]."""
        for layer, state, ablated in self._orig.walk(tokens, last_at_end=True, ablated=self._next):
            if self._difference is not None:
                self._new = self._difference.step(layer, state, state.at_end)
            if layer >= self._plan.first_layer:
                self.layers[layer] = self._cells.keep(state)
                self._keep_values(layer, state)
                if ablated is not None:
                    self.frozen[layer] = ablated["z"].where[self._cells.in_orig]
            final = state.resid_post if state.at_end else None
            # Before the next layer's are made.
            del state, ablated
            self._new = {}
        return final

    def _next(self, layer: int) -> Ablated | None:
        """Goes on to a layer: what a circuit ablates there."""
        self._sources.step()
        return self._ablated(layer)

    def _ablated(self, layer: int) -> Ablated | None:
        """Where a circuit ablates z, and what it becomes, by rows of the run."""
        circuit, pairs = self._circuit, self._sources.pairs
        if circuit is None:
            return None
        grid, config = self._orig.grid, self._engine.config
        where_NTH = torch.ones(grid.N, grid.T, config.n_head, dtype=torch.bool)
        prompts = torch.arange(grid.N)
        for head, role in circuit.nodes:
            if head.layer == layer:
                where_NTH[prompts, pairs.positions[role], head.head] = False
        value = self._sources.value("z", layer, EVERYWHERE, where_NTH.any(-1))
        return {"z": Replaced(grid.gather(where_NTH), grid.gather(value))}

    def _keep_values(self, layer: int, state: LayerState) -> None:
        """Differences to the base of every site that some variant changes in this layer."""
        tokens, orig = (self._cells.prompt, self._cells.token), self._sources.pairs.orig
        for (site, at), names in self._plan.changes.items():
            if at != layer:
                continue
            for key in {self._places.key[name] for name in names}:
                if key == "" and self._new:
                    self.values[site, layer, key] = self._difference.at(self._new[site], tokens)
                    continue
                mine = [self._places.positions[n] for n in names if self._places.key[n] == key]
                at_new = self._places.positions[key] if key else EVERYWHERE
                where = torch.stack([p.where(orig) for p in mine]).any(0)[:, : self._orig.grid.T]
                value = self._sources.value(site, layer, at_new, where)
                self.values[site, layer, key] = value[tokens] - self._own(site, layer, state)

    def _own(self, site: str, layer: int, state: LayerState) -> Tensor:
        """The base's own value at the cells; in the last layer END's, since no other counts."""
        cells = self._cells
        value = site_of(self._engine.packed, state, site, layer)
        if SITES[site].by_slots:
            at_end = state.at_end and site == "q"
            return value[cells.prompt, 0 if at_end else cells.token]
        by_row = not state.at_end or SITES[site].at == BEFORE
        return value[cells.in_orig] if by_row else value[cells.prompt]
