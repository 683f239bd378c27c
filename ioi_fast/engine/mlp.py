"""An MLP as a difference: LayerNorm, two large products and the activation between them."""

from __future__ import annotations

from torch import Tensor

from ioi_fast.engine.engine import Engine


def mlp_delta(
    engine: Engine,
    layer: int,
    resid_mid: Tensor,
    pre: Tensor,
    delta: Tensor,
    index: Tensor | None = None,
) -> Tensor:
    """Change of an MLP's output: resid_mid [N, D], pre [N, F], delta [..., N, D] -> [..., N, D].

    With `index` [R] row r of delta [R, D] belongs to base row index[r].
    """
    return engine.ops.mlp_delta(resid_mid, pre, delta, *_weights(engine, layer), index)


def add_mlp_delta(
    engine: Engine,
    layer: int,
    resid_mid: Tensor,
    pre: Tensor,
    delta: Tensor,
) -> None:
    """Adds to delta [..., N, D], in place, the change that it makes of an MLP's output."""
    engine.ops.add_mlp_delta(resid_mid, pre, delta, *_weights(engine, layer))


def _weights(engine: Engine, layer: int) -> tuple:
    config, block = engine.config, engine.weights.blocks[layer]
    weights = (engine.packed.linear(layer, "mlp_in"), engine.packed.linear(layer, "mlp_out"))
    return block.ln_2_gain, config.layer_norm_epsilon, *weights, config.activation_function
