"""An MLP as a difference: LayerNorm, two large products and the activation between them."""

from __future__ import annotations

from torch import Tensor

from ioi_fast.engine.ops import Ops
from ioi_fast.engine.packing import Packed
from ioi_fast.model.gpt2 import GPT2


def mlp_delta(
    model: GPT2,
    packed: Packed,
    ops: Ops,
    layer: int,
    resid_mid: Tensor,
    pre: Tensor,
    delta: Tensor,
    index: Tensor | None = None,
) -> Tensor:
    """Change of an MLP's output: resid_mid [N, D], pre [N, F], delta [..., N, D] -> [..., N, D].

    With `index` [R] row r of delta [R, D] belongs to base row index[r].
    """
    return ops.mlp_delta(resid_mid, pre, delta, *_weights(model, packed, layer), index)


def add_mlp_delta(
    model: GPT2,
    packed: Packed,
    ops: Ops,
    layer: int,
    resid_mid: Tensor,
    pre: Tensor,
    delta: Tensor,
) -> None:
    """Adds to delta [..., N, D], in place, the change that it makes of an MLP's output."""
    ops.add_mlp_delta(resid_mid, pre, delta, *_weights(model, packed, layer))


def _weights(model: GPT2, packed: Packed, layer: int) -> tuple:
    config, block = model.config, model.weights.blocks[layer]
    weights = (packed.linear(layer, "mlp_in"), packed.linear(layer, "mlp_out"))
    return block.ln_2_gain, config.layer_norm_epsilon, *weights, config.activation_function
