"""Both clean runs of some prompts, layer by layer together: only what the waves read is kept."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.engine.clean_run import Ablated, CleanRun, Grid, LayerState
from ioi_fast.engine.engine import Engine
from ioi_fast.engine.knock_outs import KnockOuts, replaced_by
from ioi_fast.engine.new_run import Both, NewRun
from ioi_fast.engine.rerun_cells import LayerBase, RerunCells


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """What is asked of the two runs of some prompts.

    Cells are the tokens that senders patch: at[n] of each prompt, or with `everywhere` all from
    the first changed one to at[n]. They match new_at[n] of the new prompt, or the same tokens.
    """

    at: Tensor  # [N]
    new_at: Tensor  # [N]
    first_changed: Tensor  # [N]
    everywhere: bool
    until: tuple[int, int]  # last place read of the new run: (layer, 0 its heads or 1 its MLP)
    from_layer: int | None  # first layer of the second phase; None for the logits

    @property
    def first(self) -> Tensor:
        """First cell of each prompt, [N]."""
        return self.first_changed if self.everywhere else self.at

    @property
    def aligned(self) -> bool:
        """Whether the cells match token by token, so that new can run as a difference."""
        return torch.equal(self.at, self.new_at)


@dataclass(frozen=True, slots=True, eq=False)
class CellSites:
    """What the waves read of the two runs at C cells, by layer; delta is new − orig.

    In the last layer only cells at END are filled: no other reaches the answer from there.
    """

    resid_pre: list[Tensor] = field(default_factory=list)  # [C, D]
    resid_mid: list[Tensor] = field(default_factory=list)  # [C, D]
    pre: list[Tensor] = field(default_factory=list)  # [C, F] input of the activation
    delta_z: list[Tensor] = field(default_factory=list)  # [C, H, K]
    delta_mlp: list[Tensor] = field(default_factory=list)  # [C, D]
    layers: dict[int, LayerBase] = field(default_factory=dict)  # at the cells of the rerun
    # Where sites of the rerun are knocked out.
    frozen: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    frozen_mlp: dict[int, Tensor] = field(default_factory=dict)  # [C] knocked-out cells

    def of_waves(self) -> list[Tensor]:
        """All that waves read, in one order; the rest is for what follows them."""
        lists = (self.resid_pre, self.resid_mid, self.pre, self.delta_z, self.delta_mlp)
        return [rows for by_layer in lists for rows in by_layer]

    def copied(self) -> CellSites:
        """What waves read, in tensors of its own."""
        lists = (self.resid_pre, self.resid_mid, self.pre, self.delta_z, self.delta_mlp)
        return CellSites(*([rows.clone() for rows in by_layer] for by_layer in lists))


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """The cells of some prompts as rows of the original run."""

    grid: Grid
    rows: Tensor  # [C] rows of the original run
    at_end: Tensor  # [C] bool: which are END
    prompt: Tensor  # [C]

    @classmethod
    def of(cls, orig: Grid, wanted: Wanted) -> Cells:
        """The cells that are wanted."""
        grid = Grid.of(wanted.first, wanted.at, orig.T)
        rows = torch.searchsorted(orig.cells, grid.cells)
        prompt = grid.cells // orig.T
        return cls(grid, rows, grid.cells % orig.T == orig.end[prompt], prompt)

    def pick(self, values: Tensor, of_end: bool) -> Tensor:
        """Values at the cells, [C, ...], from rows of the original run or of END alone."""
        if not of_end:
            return values[self.rows]
        picked = values[self.prompt]
        return picked if self.at_end.all() else picked * _like(self.at_end, picked)


def _like(mask: Tensor, values: Tensor) -> Tensor:
    return mask.view(-1, *[1] * (values.dim() - 1)).to(values.dtype)


def clean_runs(
    engine: Engine,
    pairs: PromptPairs,
    wanted: Wanted | None,
    knock_outs: KnockOuts | None = None,
) -> tuple[CellSites, Tensor]:
    """Runs both prompts: what the waves read, and the final residual of orig at END, [N, D].

    Without `wanted` only the original prompts run. Knock-outs are in force in both.
    """
    orig = CleanRun(engine, Grid.of(torch.zeros_like(pairs.end), pairs.end))
    sites, keep = CellSites(), None
    if wanted is not None:
        keep = _Keeper.of(engine, pairs, orig.grid, wanted, knock_outs)
    ablated = replaced_by(knock_outs, orig.grid)
    for layer, state, replaced in orig.walk(pairs.orig, last_at_end=True, ablated=ablated):
        if keep is not None:
            keep.layer(layer, state, sites, replaced)
        final = state.resid_post if state.at_end else None
        del state  # before the next layer's is made
    return sites, final


@dataclass(slots=True, eq=False)
class _Keeper:
    """Walks the new run beside the original one and keeps what is wanted of both."""

    wanted: Wanted
    cells: Cells
    rerun_cells: RerunCells
    new: _Aligned | _Apart
    knock_outs: KnockOuts | None

    @classmethod
    def of(
        cls,
        engine: Engine,
        pairs: PromptPairs,
        orig: Grid,
        wanted: Wanted,
        knock_outs: KnockOuts | None,
    ) -> _Keeper:
        cells = Cells.of(orig, wanted)
        if wanted.aligned:
            tokens = (wanted.first_changed, wanted.at)
            run = NewRun.of(engine, orig, pairs, *tokens)
            new = _Aligned(run, cells, not wanted.everywhere)
        else:
            grid = Grid.of(torch.zeros_like(wanted.new_at), wanted.new_at)
            clean = CleanRun(engine, grid)
            new = _Apart(clean, cells, clean.embed(pairs.new))
        return cls(wanted, cells, RerunCells.since(orig, wanted.first), new, knock_outs)

    def layer(
        self, layer: int, state: LayerState, sites: CellSites, ablated: Ablated | None
    ) -> None:
        sites.resid_pre.append(state.resid_pre[self.cells.rows])
        sites.resid_mid.append(self.cells.pick(state.resid_mid, state.at_end))
        sites.pre.append(self.cells.pick(state.pre, state.at_end))
        until, half = self.wanted.until
        if layer <= until:
            both = None
            if self.knock_outs is not None:
                both = (ablated, self.knock_outs.on("new", layer, self.new.run.grid))
            delta_z, delta_mlp = self.new.layer(layer, state, layer == until, not half, both)
            sites.delta_z.append(delta_z)
            sites.delta_mlp.append(delta_mlp)
        if self.wanted.from_layer is not None and layer >= self.wanted.from_layer:
            sites.layers[layer] = self.rerun_cells.keep(state)
            for site, replaced in (ablated or {}).items():
                sites.frozen[site, layer] = replaced.where[self.rerun_cells.in_orig]
        if ablated and "mlp_out" in ablated:
            sites.frozen_mlp[layer] = ablated["mlp_out"].where[self.cells.rows]


@dataclass(slots=True, eq=False)
class _Aligned:
    """The new run as a difference."""

    run: NewRun
    cells: Cells
    each: bool  # one cell a prompt: the last of its rows

    def layer(
        self, layer: int, state: LayerState, last: bool, heads_only: bool, ablated: Both | None
    ) -> tuple[Tensor, Tensor]:
        """δz [C, H, K] and δ of the MLP's output [C, D] at the cells."""
        grid, C = self.run.grid, len(self.cells.rows)
        if state.at_end and not self.cells.at_end.any():
            # No cell is END, and in the last layer nothing else reaches the answer.
            zero = torch.zeros(C, state.resid_pre.shape[1], dtype=torch.float32)
            return zero.unflatten(1, state.z.shape[1:]), zero
        ends = state.at_end or (last and self.each)
        change = self.run.step(layer, state, ends, last and heads_only, ablated)
        delta_z = change["z"]
        delta_mlp = change.get("mlp_out")
        if delta_mlp is None:
            delta_mlp = torch.zeros_like(delta_z).flatten(1)
        if state.at_end:
            return self.cells.pick(delta_z, True), self.cells.pick(delta_mlp, True)
        if self.each and not ends:
            return delta_z[grid.end_rows], delta_mlp[grid.end_rows]
        return delta_z, delta_mlp


@dataclass(slots=True, eq=False)
class _Apart:
    """The new run by itself, subtracted at the one cell of each prompt."""

    run: CleanRun
    cells: Cells
    resid: Tensor

    def layer(
        self, layer: int, state: LayerState, last: bool, heads_only: bool, ablated: Both | None
    ) -> tuple[Tensor, Tensor]:
        """δz [C, H, K] and δ of the MLP's output [C, D] at the cells."""
        new = self.run.layer(layer, self.resid, last, ablated and ablated[1])
        self.resid = new.resid_post
        rows = self.run.grid.end_rows
        z, mlp_out = (v if new.at_end else v[rows] for v in (new.z, new.mlp_out))
        delta_z = z - self.cells.pick(state.z, state.at_end)
        return delta_z, mlp_out - self.cells.pick(state.mlp_out, state.at_end)
