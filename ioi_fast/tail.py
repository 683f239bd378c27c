"""The tokens from a patched one to END, and what the original run lends to differences there."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ioi_fast.base import Grid, LayerState


@dataclass(frozen=True, slots=True, eq=False)
class LayerBase:
    """What a layer of the original run lends to differences on the tokens from `first` to END."""

    resid_pre: Tensor  # [M, D]
    q: Tensor  # [N, T', H, K], or [N, 1, H, K] at END alone
    k: Tensor  # [N, S, H, K]
    v: Tensor  # [N, S, H, K]
    resid_mid: Tensor  # [M or N, D]
    pre: Tensor  # [M or N, F]


@dataclass(frozen=True, slots=True, eq=False)
class Tail:
    """The tokens first..END of each prompt: M rows; as [N, T'] slots some prompts leave free."""

    grid: Grid  # of the N·S tokens of the original run
    first: Tensor  # [N]
    in_orig: Tensor  # [M] rows of the original run
    at: Tensor  # [N, T'] position of each slot; −1 where a prompt has none

    @classmethod
    def of(cls, orig: Grid, first: Tensor) -> Tail:
        """The tail of prompts that begins at first[n] ≤ END."""
        grid = Grid.of(first, orig.end)
        slots = torch.arange(int((orig.end - first).max()) + 1)
        at = first[:, None] + slots
        at = torch.where(at <= orig.end[:, None], at, -1)
        return cls(grid, first, torch.searchsorted(orig.cells, grid.cells), at)

    @classmethod
    def of_prompts(cls, end: Tensor, first: Tensor) -> Tail:
        """The tail in an original run on every token up to END."""
        return cls.of(Grid.of(torch.zeros_like(end), end), first)

    def slots(self, rows: Tensor) -> Tensor:
        """Rows [..., M, W] at their slots of [..., N, T', W], zero elsewhere."""
        N, width = self.at.shape
        out = rows.new_zeros(*rows.shape[:-2], N * width, rows.shape[-1])
        return out.index_copy_(-2, self._used, rows).unflatten(-2, (N, width))

    def rows(self, slots: Tensor) -> Tensor:
        """The rows [..., M, W] of [..., N, T', W]."""
        return slots.flatten(-3, -2).index_select(-2, self._used)

    @property
    def _used(self) -> Tensor:
        return (self.at.flatten() >= 0).nonzero().squeeze(1)

    def keep(self, state: LayerState) -> LayerBase:
        """What of a layer of the original run is needed for this tail."""
        rows = self.in_orig
        if state.at_end:
            q, (resid_mid, pre) = state.q, (state.resid_mid, state.pre)
        else:
            q = state.q[torch.arange(self.grid.N)[:, None], self.at.clamp(min=0)]
            resid_mid, pre = state.mid_rows(rows)
        return LayerBase(state.resid_pre[rows], q, state.k, state.v, resid_mid, pre)
