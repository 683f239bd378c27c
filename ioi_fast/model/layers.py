"""What is GPT-2's own in a plain forward pass, a function a step: positions, LayerNorms, MLP.

Whatever runs a model without packed weights is made of these. Letters of shapes as in gpt2.py.
"""

from __future__ import annotations

from torch import Tensor

from ioi_fast.kernels import reference
from ioi_fast.model.config import GPT2Config
from ioi_fast.model.weights import Block, Weights


def embedded(weights: Weights, tokens: Tensor) -> Tensor:
    """The residual stream before the first layer, [N, T] -> [N, T, D]."""
    return weights.wte[tokens] + weights.wpe[: tokens.shape[1]]


def projections(resid: Tensor, block: Block, config: GPT2Config) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v of the residual stream before a layer, [..., D] -> three times [..., H, K]."""
    normed = reference.layernorm(resid, block.ln_1_gain, block.ln_1_bias, config.layer_norm_epsilon)
    return split_heads(normed @ block.w_qkv + block.b_qkv, config)


def split_heads(x_RE: Tensor, config: GPT2Config) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v by head, [..., 3·H·K] -> three times [..., H, K]."""
    shape = (*x_RE.shape[:-1], 3, config.n_head, config.d_head)
    q, k, v = x_RE.view(shape).unbind(-3)
    return q, k, v


def attention_pattern(q: Tensor, k: Tensor, layer: int, config: GPT2Config) -> Tensor:
    """What the heads of a layer attend to, [N, T, H, K] and [N, S, H, K] -> [N, H, T, S]."""
    return reference.attention_pattern(q, k, config.attention_scale(layer))


def mlp(resid: Tensor, block: Block, config: GPT2Config) -> Tensor:
    """What a layer's MLP writes of the residual stream before it, [..., D] -> [..., D]."""
    normed = reference.layernorm(resid, block.ln_2_gain, block.ln_2_bias, config.layer_norm_epsilon)
    activation = reference.ACTIVATIONS[config.activation_function]
    return activation(normed @ block.w_in + block.b_in) @ block.w_out + block.b_out


def logits(resid: Tensor, weights: Weights, config: GPT2Config) -> Tensor:
    """Logits of the residual stream behind the last layer, [..., D] -> [..., V]."""
    normed = reference.layernorm(
        resid, weights.ln_f_gain, weights.ln_f_bias, config.layer_norm_epsilon
    )
    return normed @ weights.unembed.T
