"""A plain forward pass with packed weights: logits of every position."""

from __future__ import annotations

import torch
from torch import Tensor

from ioi_fast.engine.clean_run import CleanRun, Grid, layernorm, tiles
from ioi_fast.engine.engine import Engine
from ioi_fast.plan.blocks import TOKENS_PER_BLOCK


@torch.no_grad()
def logits(engine: Engine, tokens: Tensor) -> Tensor:
    """[N, T] int64 -> [N, T, V] float32, for float32 weights on a CPU."""
    (N, T), weights, config = tokens.shape, engine.weights, engine.config
    parts = []
    for some in tiles(N, max(1, TOKENS_PER_BLOCK // max(T, 1))):
        members = tokens[some]
        end = torch.full((len(members),), T - 1)
        run = CleanRun(engine, Grid.of(torch.zeros_like(end), end))
        for layer, state, _ in run.walk(members):
            if layer == config.n_layer - 1:
                resid = state.resid_post
            del state  # before the next layer's is made
        final = (weights.ln_f_gain, weights.ln_f_bias, config.layer_norm_epsilon)
        normed = layernorm(resid, *final)
        parts.append(engine.packed.unembed.delta(normed).view(len(members), T, -1))
    return parts[0] if len(parts) == 1 else torch.cat(parts)
