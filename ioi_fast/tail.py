"""The cells at which a rerun can differ, and what the original run lends to differences there."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ioi_fast.base import Grid, LayerState


@dataclass(frozen=True, slots=True, eq=False)
class LayerBase:
    """What a layer of the original run lends to differences at M cells."""

    resid_pre: Tensor  # [M, D]
    q: Tensor  # [N, T', H, K], or [N, 1, H, K] at END alone
    k: Tensor  # [N, S, H, K]
    v: Tensor  # [N, S, H, K]
    resid_mid: Tensor  # [M or N, D]
    pre: Tensor  # [M or N, F]


@dataclass(frozen=True, slots=True, eq=False)
class Tail:
    """Some tokens of each prompt, END among them: M rows by prompt; as [N, T'] slots some prompts
    leave free."""

    end: Tensor  # [N]
    end_rows: Tensor  # [N] the row of each prompt's END
    in_orig: Tensor  # [M] rows of the original run
    prompt: Tensor  # [M]
    token: Tensor  # [M]
    at: Tensor  # [N, T'] position of each slot, ascending; −1 where a prompt has none

    @classmethod
    def of(cls, orig: Grid, chosen_NT: Tensor) -> Tail:
        """The tokens up to END that are chosen in [N, T], and END itself."""
        tokens_T = torch.arange(chosen_NT.shape[1])
        end_N1 = orig.end[:, None]
        chosen_NT = (chosen_NT & (tokens_T <= end_N1)) | (tokens_T == end_N1)
        prompt, token = chosen_NT.nonzero(as_tuple=True)
        width_N = chosen_NT.sum(1)
        at = torch.full((len(width_N), int(width_N.max())), -1)
        at[torch.arange(at.shape[1]) < width_N[:, None]] = token
        in_orig = torch.searchsorted(orig.cells, prompt * orig.T + token)
        return cls(orig.end, width_N.cumsum(0) - 1, in_orig, prompt, token, at)

    @classmethod
    def since(cls, orig: Grid, first: Tensor) -> Tail:
        """The tokens from first[n] ≤ END on."""
        return cls.of(orig, torch.arange(orig.T) >= first[:, None])

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

    def keep(self, state: LayerState) -> LayerBase:
        """What of a layer of the original run is needed at these cells."""
        rows = self.in_orig
        if state.at_end:
            q, (resid_mid, pre) = state.q, (state.resid_mid, state.pre)
        else:
            q = state.q[torch.arange(len(self.end))[:, None], self.at.clamp(min=0)]
            resid_mid, pre = state.mid_rows(rows)
        return LayerBase(state.resid_pre[rows], q, state.k, state.v, resid_mid, pre)
