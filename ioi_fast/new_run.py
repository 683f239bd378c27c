"""The new run as a difference to the original one (always fp32).

It starts at the embeddings of the changed tokens and ends at the last token that is patched.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ioi_fast.base import Ablated, Grid, LayerState, joined, tiles
from ioi_fast.blocks import ROWS_PER_TILE
from ioi_fast.mlp import mlp_delta
from ioi_fast.model import GPT2, split_heads
from ioi_fast.ops import Ops
from ioi_fast.packing import Packed
from ioi_fast.prompts import PromptPairs

Both = tuple[Ablated, Ablated]  # what is replaced in the original run and in the new one


@dataclass(frozen=True, slots=True, eq=False)
class DifferenceRun:
    """new − orig, for prompts that match token by token."""

    model: GPT2
    packed: Packed
    ops: Ops
    grid: Grid  # the cells from the first changed token on, up to the last patched one
    in_orig: Tensor  # [R] the row of each cell in the original run

    @classmethod
    def of(
        cls, model: GPT2, packed: Packed, ops: Ops, orig: Grid, first: Tensor, last: Tensor
    ) -> DifferenceRun:
        """The difference run on tokens first[n]..last[n] of each prompt."""
        grid = Grid.of(first, last, orig.T)
        return cls(model, packed, ops, grid, torch.searchsorted(orig.cells, grid.cells))

    def embed(self, pairs: PromptPairs) -> Tensor:
        """Change of the embeddings, [R, D]; positions are the same and cancel."""
        wte = self.model.weights.wte
        new, orig = (padded(tokens, self.grid.T) for tokens in (pairs.new, pairs.orig))
        return wte[self.grid.gather(new)] - wte[self.grid.gather(orig)]

    def layer(
        self,
        layer: int,
        state: LayerState,
        delta: Tensor,
        at_end: bool,
        heads_only: bool,
        ablated: Both | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One layer: delta [R, D] -> (delta after it, of z and of the MLP's output).

        With at_end all three are for the last cell of each prompt alone; with heads_only the last
        of them is zero and delta is of no use. `ablated` is what is replaced in both runs.
        """
        grid, block = self.grid, self.model.weights.blocks[layer]
        epsilon = self.model.config.layer_norm_epsilon
        resid_pre = state.resid_pre[self.in_orig]
        normed = self.ops.layernorm_delta(resid_pre, delta, block.ln_1_gain, epsilon)
        delta_z = self._attention(layer, state, normed, at_end)
        delta_z = self._replaced("z", state, delta_z, ablated, at_end)
        before = delta[grid.end_rows] if at_end else delta
        if heads_only:
            return before, delta_z, torch.zeros_like(before)
        delta_mid = before + self.packed.linear(layer, "o").delta(delta_z.flatten(-2))
        rows = self.in_orig[grid.end_rows] if at_end else self.in_orig
        delta_mlp = self.mlp(layer, state, rows, delta_mid)
        delta_mlp = self._replaced("mlp_out", state, delta_mlp, ablated, at_end)
        return delta_mid + delta_mlp, delta_z, delta_mlp

    def _replaced(
        self, site: str, state: LayerState, delta: Tensor, ablated: Both | None, at_end: bool
    ) -> Tensor:
        """new − orig of a site that is replaced in the original run, the new one or both."""
        if ablated is None or not (site in ablated[0] or site in ablated[1]):
            return delta
        new_rows = self.grid.end_rows if at_end else torch.arange(len(self.in_orig))
        orig_rows = self.in_orig[new_rows]
        of_state = torch.arange(len(new_rows)) if state.at_end else orig_rows
        used = getattr(state, site)[of_state]
        computed = state.computed.get(site, getattr(state, site))[of_state]
        new, where = computed + delta, torch.zeros(used.shape[:-1], dtype=torch.bool)
        if site in ablated[1]:
            replaced = ablated[1][site].rows(new_rows)
            new, where = replaced.onto(new), where | replaced.where
        if site in ablated[0]:
            where = where | ablated[0][site].where[orig_rows]
        return torch.where(where[..., None], new - used, delta)

    def _attention(self, layer: int, state: LayerState, normed: Tensor, at_end: bool) -> Tensor:
        grid, config = self.grid, self.model.config
        scale = config.attention_scale(layer)
        if not at_end:
            dqkv = self.packed.linear(layer, "qkv").delta(normed)
            dq, dk, dv = split_heads(grid.spread(dqkv), config)
            delta_z = self.ops.attention_delta(state.q, state.k, state.v, dq, dk, dv, scale)
            return grid.gather(delta_z)
        heads = (config.n_head, config.d_head)
        dq = self.packed.linear(layer, "q").delta(normed[grid.end_rows])
        dq = dq[:, None].unflatten(-1, heads)
        dk, dv = grid.spread(self.packed.linear(layer, "kv").delta(normed)).chunk(2, -1)
        dk, dv = dk.unflatten(-1, heads), dv.unflatten(-1, heads)
        q, at = state.query(grid.end), grid.end[:, None]
        return self.ops.attention_delta(q, state.k, state.v, dq, dk, dv, scale, at).squeeze(1)

    def mlp(self, layer: int, state: LayerState, rows: Tensor, delta: Tensor) -> Tensor:
        """Change of the MLP's output for rows [R] of the original run, delta [R, D] -> [R, D]."""
        mlp = (self.model, self.packed, self.ops, layer, state.resid_mid, state.pre)
        if state.at_end:
            assert len(rows) == len(state.resid_mid)
            return mlp_delta(*mlp, delta)
        parts = [
            mlp_delta(*mlp, delta[tile], rows[tile]) for tile in tiles(len(delta), ROWS_PER_TILE)
        ]
        return joined(parts)


def padded(tokens: Tensor, T: int) -> Tensor:
    """Tokens [N, T]: cut, or filled up with token 0 that nothing reads."""
    return torch.nn.functional.pad(tokens[:, :T], (0, max(0, T - tokens.shape[1])))
