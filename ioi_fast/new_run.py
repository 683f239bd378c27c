"""Both clean runs at once: the new run is a difference to the original one (always fp32).

They walk the layers together, so that only what the wave reads at END outlives a layer. The
difference starts at the embeddings of the changed tokens and costs only the tokens from there on.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ioi_fast.base import CleanRun, Grid, LayerState, joined, tiles
from ioi_fast.model import GPT2, split_heads
from ioi_fast.ops import Ops
from ioi_fast.packing import Packed
from ioi_fast.plan import ROWS_PER_TILE
from ioi_fast.prompts import PromptPairs


@dataclass(frozen=True, slots=True, eq=False)
class EndSites:
    """What the wave reads of the two runs, all at END of N prompts, by layer.

    delta_z and delta_mlp (new − orig) go as far as the plan needs them.
    """

    resid_mid: list[Tensor]  # [N, D]
    pre: list[Tensor]  # [N, F] input of the activation
    delta_z: list[Tensor]  # [N, H, K]
    delta_mlp: list[Tensor]  # [N, D]
    final: Tensor  # [N, D] residual after the last layer


@dataclass(frozen=True, slots=True, eq=False)
class DifferenceRun:
    """new − orig, for prompts that match token by token."""

    model: GPT2
    packed: Packed
    ops: Ops
    orig_grid: Grid
    grid: Grid  # the cells from the first changed token on
    in_orig: Tensor  # [R] the row of each cell in the original run

    @classmethod
    def of(cls, model: GPT2, packed: Packed, ops: Ops, orig: Grid, first: Tensor) -> DifferenceRun:
        """The difference run whose rows start at first[n] ≤ END of each prompt."""
        grid = Grid.of(first, orig.end)
        return cls(model, packed, ops, orig, grid, torch.searchsorted(orig.cells, grid.cells))

    def embed(self, pairs: PromptPairs) -> Tensor:
        """Change of the embeddings, [R, D]; positions are the same and cancel."""
        wte, T = self.model.weights.wte, self.grid.T
        new = wte[self.grid.gather(pairs.new[:, :T])]
        return new - wte[self.grid.gather(pairs.orig[:, :T])]

    def layer(
        self, layer: int, state: LayerState, delta: Tensor, end_only: bool, with_mlp: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One layer: delta [R, D] -> (delta of the rows, of z and of the MLP, both at END).

        with end_only the rows that come back are END alone; without with_mlp the MLP is left out.
        """
        grid, block = self.grid, self.model.weights.blocks[layer]
        epsilon = self.model.config.layer_norm_epsilon
        resid_pre = state.resid_pre[self.in_orig]
        normed = self.ops.layernorm_delta(resid_pre, delta, block.ln_1_gain, epsilon)
        delta_z = self._attention(layer, state, normed, end_only)
        delta_z_end = delta_z if end_only else delta_z[grid.end_rows]
        before = delta[grid.end_rows] if end_only else delta
        if end_only and not with_mlp:
            return before, delta_z_end, torch.zeros_like(before)
        delta_mid = before + self.packed.linear(layer, "o").delta(delta_z.flatten(-2))
        rows = self._rows(state, end_only)
        delta_mlp = self.mlp(layer, state.resid_mid[rows], state.pre[rows], delta_mid)
        delta_mlp_end = delta_mlp if end_only else delta_mlp[grid.end_rows]
        return delta_mid + delta_mlp, delta_z_end, delta_mlp_end

    def _rows(self, state: LayerState, end_only: bool) -> Tensor:
        """Rows of resid_mid and pre in the original run, which may itself be at END alone."""
        if len(state.resid_mid) == self.orig_grid.N and state.q.shape[1] == 1:
            return torch.arange(self.orig_grid.N)
        return self.orig_grid.end_rows if end_only else self.in_orig

    def _attention(self, layer: int, state: LayerState, normed: Tensor, end_only: bool) -> Tensor:
        grid, config = self.grid, self.model.config
        scale = config.attention_scale(layer)
        if not end_only:
            dqkv = self.packed.linear(layer, "qkv").delta(normed)
            dq, dk, dv = split_heads(grid.spread(dqkv), config)
            delta_z = self.ops.attention_delta(state.q, state.k, state.v, dq, dk, dv, scale)
            return grid.gather(delta_z)
        heads = (config.n_head, config.d_head)
        q_end = state.q if state.q.shape[1] == 1 else state.q[torch.arange(grid.N), grid.end, None]
        dq = self.packed.linear(layer, "q").delta(normed[grid.end_rows])
        dq = dq[:, None].unflatten(-1, heads)
        dk, dv = grid.spread(self.packed.linear(layer, "kv").delta(normed)).chunk(2, -1)
        dk, dv = dk.unflatten(-1, heads), dv.unflatten(-1, heads)
        at = grid.end[:, None]
        delta_z = self.ops.attention_delta(q_end, state.k, state.v, dq, dk, dv, scale, at)
        return delta_z.squeeze(1)

    def mlp(self, layer: int, resid_mid: Tensor, pre: Tensor, delta: Tensor) -> Tensor:
        """Change of the MLP's output, rows [R, D] -> [R, D]."""
        model, packed, ops = self.model, self.packed, self.ops
        parts = [
            mlp_delta(model, packed, ops, layer, resid_mid[rows], pre[rows], delta[rows])
            for rows in tiles(len(delta), ROWS_PER_TILE)
        ]
        return joined(parts)


def mlp_delta(
    model: GPT2,
    packed: Packed,
    ops: Ops,
    layer: int,
    resid_mid: Tensor,
    pre: Tensor,
    delta: Tensor,
) -> Tensor:
    """Change of an MLP's output: resid_mid [N, D], pre [N, F], delta [..., N, D] -> [..., N, D]."""
    config, block = model.config, model.weights.blocks[layer]
    normed = ops.layernorm_delta(resid_mid, delta, block.ln_2_gain, config.layer_norm_epsilon)
    hidden = packed.linear(layer, "mlp_in").delta(normed.view(-1, config.n_embd))
    hidden = hidden.view(*delta.shape[:-1], config.d_mlp)
    hidden = ops.gelu_delta(pre, hidden, config.activation_function)
    out = packed.linear(layer, "mlp_out").delta(hidden.view(-1, config.d_mlp))
    return out.view(delta.shape)


def run_pair(
    model: GPT2,
    packed: Packed,
    ops: Ops,
    pairs: PromptPairs,
    first_changed: Tensor,
    until: tuple[int, int] | None,
) -> EndSites:
    """Both runs of prompts that match token by token; the new one up to `until` = (layer, half).

    `until` is the last place that the wave reads of the new run (half 0: its heads, 1: its MLP);
    None leaves the new run out.
    """
    orig = CleanRun(model, packed, Grid.of(torch.zeros_like(pairs.end), pairs.end))
    last_layer, half = (-1, 0) if until is None else until
    difference = DifferenceRun.of(model, packed, ops, orig.grid, first_changed)
    sites = EndSites([], [], [], [], torch.empty(0))
    resid = orig.embed(pairs.orig)
    delta = difference.embed(pairs) if until is not None else None
    for layer in range(model.config.n_layer):
        state, resid = _keep_layer(orig, layer, resid, sites)
        if layer <= last_layer:
            at_end = layer == last_layer
            delta, delta_z, delta_mlp = difference.layer(layer, state, delta, at_end, bool(half))
            sites.delta_z.append(delta_z)
            sites.delta_mlp.append(delta_mlp)
    return EndSites(sites.resid_mid, sites.pre, sites.delta_z, sites.delta_mlp, resid)


def run_apart(
    model: GPT2, packed: Packed, pairs: PromptPairs, new_at: Tensor, until: tuple[int, int]
) -> EndSites:
    """Both runs of prompts whose END matches another token `new_at` [N] of new: two clean runs,
    subtracted there.
    """
    orig = CleanRun(model, packed, Grid.of(torch.zeros_like(pairs.end), pairs.end))
    new = CleanRun(model, packed, Grid.of(torch.zeros_like(new_at), new_at))
    last_layer = until[0]
    sites = EndSites([], [], [], [], torch.empty(0))
    resid, resid_new = orig.embed(pairs.orig), new.embed(pairs.new)
    for layer in range(model.config.n_layer):
        state, resid = _keep_layer(orig, layer, resid, sites)
        if layer <= last_layer:
            state_new = new.layer(layer, resid_new, layer == last_layer)
            resid_new = state_new.resid_mid + state_new.mlp_out
            sites.delta_z.append(new.at_end(state_new.z) - orig.at_end(state.z))
            sites.delta_mlp.append(new.at_end(state_new.mlp_out) - orig.at_end(state.mlp_out))
    return EndSites(sites.resid_mid, sites.pre, sites.delta_z, sites.delta_mlp, resid)


def _keep_layer(
    orig: CleanRun, layer: int, resid: Tensor, sites: EndSites
) -> tuple[LayerState, Tensor]:
    """Runs a layer of the original prompts and keeps what the wave reads at END."""
    state = orig.layer(layer, resid, end_only=layer == orig.model.config.n_layer - 1)
    sites.resid_mid.append(orig.at_end(state.resid_mid))
    sites.pre.append(orig.at_end(state.pre))
    return state, state.resid_mid + state.mlp_out
