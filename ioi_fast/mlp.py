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
) -> Tensor:
    """Change of an MLP's output: resid_mid [N, D], pre [N, F], delta [..., N, D] -> [..., N, D]."""
    config, block = model.config, model.weights.blocks[layer]
    normed = ops.layernorm_delta(resid_mid, delta, block.ln_2_gain, config.layer_norm_epsilon)
    hidden = packed.linear(layer, "mlp_in").delta(normed.view(-1, config.n_embd))
    hidden = hidden.view(*delta.shape[:-1], config.d_mlp)
    hidden = ops.gelu_delta(pre, hidden, config.activation_function)
    out = packed.linear(layer, "mlp_out").delta(hidden.view(-1, config.d_mlp))
    return out.view(delta.shape)
