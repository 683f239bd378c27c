"""An MLP as a difference: LayerNorm, two large products and the activation between them."""

from __future__ import annotations

from torch import Tensor

from ioi_fast.model import GPT2
from ioi_fast.ops import Ops
from ioi_fast.packing import Packed


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
    config, block = model.config, model.weights.blocks[layer]
    return ops.mlp_delta(
        resid_mid,
        pre,
        delta,
        block.ln_2_gain,
        config.layer_norm_epsilon,
        packed.linear(layer, "mlp_in"),
        packed.linear(layer, "mlp_out"),
        config.activation_function,
        index,
    )
