"""The cells at which a rerun can differ, and what the original run lends to differences there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ioi_fast.engine.clean_run import Grid, LayerState


@dataclass(frozen=True, slots=True, eq=False)
class LayerBase:
    """What a layer of the original run lends to differences at M cells."""

    resid_pre: Tensor  # [M, D]
    q: Tensor  # [N, T', H, K], or [N, 1, H, K] at END alone
    k: Tensor  # [N, S, H, K]
    v: Tensor  # [N, S, H, K]
    resid_mid: Tensor  # [M or N, D]
    pre: Tensor  # [M or N, F]
    mid: Tensor | None = None  # the rows of resid_mid and pre that are meant, if not all in order


@dataclass(frozen=True, slots=True, eq=False)
class RerunCells:
    """Some tokens of each prompt up to a last one, END unless said otherwise: M rows by prompt; as
    [N, T'] slots some prompts leave free."""

    end: Tensor  # [N] the last one
    end_rows: Tensor  # [N] its row
    in_orig: Tensor  # [M] rows of the original run
    prompt: Tensor  # [M]
    token: Tensor  # [M]
    at: Tensor  # [N, T'] position of each slot, ascending; −1 where a prompt has none

    @classmethod
    def of_cells(cls, orig: Grid, tokens: Sequence[Sequence[int]]) -> RerunCells:
        """Chosen tokens of each prompt, ascending up to END, which is always among them."""
        prompt = torch.tensor([n for n, own in enumerate(tokens) for _ in own])
        return cls._of(orig, orig.end, prompt, torch.tensor([t for own in tokens for t in own]))

    @classmethod
    def of_grid(cls, orig: Grid, grid: Grid) -> RerunCells:
        """The cells of a grid, each prompt up to the grid's own end."""
        return cls._of(orig, grid.end, grid.cells // grid.T, grid.cells % grid.T)

    @classmethod
    def _of(cls, orig: Grid, end: Tensor, prompt: Tensor, token: Tensor) -> RerunCells:
        width_N = prompt.bincount(minlength=len(end))
        at = torch.full((len(width_N), int(width_N.max())), -1)
        at[torch.arange(at.shape[1]) < width_N[:, None]] = token
        in_orig = torch.searchsorted(orig.cells, prompt * orig.T + token)
        return cls(end, width_N.cumsum(0) - 1, in_orig, prompt, token, at)

    @classmethod
    def since(cls, orig: Grid, first: Tensor) -> RerunCells:
        """The tokens from first[n] ≤ END on."""
        return cls.of_grid(orig, Grid.of(first, orig.end, orig.T))

    def slots(self, rows: Tensor) -> Tensor:
        """Rows [..., M, W] at their slots of [..., N, T', W], zero elsewhere."""
        N, width = self.at.shape
        if len(self.in_orig) == N * width:
            return rows.unflatten(-2, (N, width))
        out = rows.new_zeros(*rows.shape[:-2], N * width, rows.shape[-1])
        return out.index_copy_(-2, self._used, rows).unflatten(-2, (N, width))

    def rows(self, slots: Tensor) -> Tensor:
        """The rows [..., M, W] of [..., N, T', W]."""
        flat = slots.flatten(-3, -2)
        return flat if len(self.in_orig) == flat.shape[-2] else flat.index_select(-2, self._used)

    @property
    def _used(self) -> Tensor:
        return (self.at.flatten() >= 0).nonzero().squeeze(1)

    def of_state(self, state: LayerState, value: Tensor) -> Tensor:
        """Rows [M, ...] of what a layer of the original run has; at its end only END's are set."""
        if not state.at_end:
            return value[self.in_orig]
        out = value.new_zeros(len(self.in_orig), *value.shape[1:])
        out[self.end_rows] = value
        return out

    def keep(self, state: LayerState) -> LayerBase:
        """What of a layer of the original run is needed at these cells, to be held on to."""
        rows = self.in_orig
        if state.at_end:
            resid_mid, pre = state.resid_mid, state.pre
        else:
            resid_mid, pre = state.resid_mid[rows], state.pre[rows]
        return self._base(state, self._queries(state), resid_mid, pre, None)

    def lent(self, state: LayerState, at_end: bool) -> LayerBase:
        """The same for as long as the layer itself is there: what is wide is read where it stands.

        With at_end, from the queries on, for the last token of each prompt alone.
        """
        queries, mid = self._queries(state), None
        if at_end and not state.at_end:
            queries = state.q[torch.arange(len(self.end)), self.end, None]
        if not state.at_end:
            mid = self.in_orig[self.end_rows] if at_end else self.in_orig
        return self._base(state, queries, state.resid_mid, state.pre, mid)

    def _base(
        self, state: LayerState, q: Tensor, resid_mid: Tensor, pre: Tensor, mid: Tensor | None
    ) -> LayerBase:
        resid_pre = state.resid_pre[self.in_orig]
        return LayerBase(resid_pre, q, state.k, state.v, resid_mid, pre, mid)

    def _queries(self, state: LayerState) -> Tensor:
        """Queries by slots, [N, T', H, K]; END's alone if the layer has no others."""
        if state.at_end:
            return state.q
        width, first = self.at.shape[1], int(self.at[0, 0])
        # Slots that a prompt leaves free may have anything: they come last.
        if first + width <= state.q.shape[1]:
            together = torch.arange(first, first + width)
            if ((self.at == together) | (self.at < 0)).all():
                return state.q[:, first : first + width]
        return state.q[torch.arange(len(self.end))[:, None], self.at.clamp(min=0)]


def live_rows(delta: Tensor) -> Tensor:
    """Where delta [P, M, D] differs from zero, [P, M]."""
    first = delta[..., 0].ne(0)
    # All columns are looked at only if that says nothing.
    return first if first.all() else delta.ne(0).any(-1)


def of_heads(rows: Tensor, heads: Tensor) -> Tensor:
    """Rows [N, T, H, K] of some heads, ascending; not copied where that is all."""
    return rows if len(heads) == rows.shape[2] else rows[:, :, heads]
