"""A plain forward pass with packed weights: logits of every position."""

from __future__ import annotations

import torch
from torch import Tensor

from ioi_fast.engine.clean_run import CleanRun, Grid, layernorm, tiles
from ioi_fast.engine.ops import Ops
from ioi_fast.engine.packing import Packed
from ioi_fast.model.gpt2 import GPT2
from ioi_fast.plan.blocks import TOKENS_PER_BLOCK


@torch.no_grad()
def logits(model: GPT2, tokens: Tensor, ops: Ops) -> Tensor:
    """[N, T] int64 -> [N, T, V] float32, for float32 weights on a CPU."""
    (N, T), weights, config = tokens.shape, model.weights, model.config
    packed, parts = Packed.of(model, ops), []
    for some in tiles(N, max(1, TOKENS_PER_BLOCK // max(T, 1))):
        members = tokens[some]
        end = torch.full((len(members),), T - 1)
        run = CleanRun(model, packed, ops, Grid.of(torch.zeros_like(end), end))
        resid = run.embed(members)
        for layer in range(config.n_layer):
            state = run.layer(layer, resid, end_only=False)
            resid = state.resid_mid + state.mlp_out
        final = (weights.ln_f_gain, weights.ln_f_bias, config.layer_norm_epsilon)
        normed = layernorm(resid, *final)
        parts.append(packed.unembed.delta(normed).view(len(members), T, -1))
    return parts[0] if len(parts) == 1 else torch.cat(parts)
