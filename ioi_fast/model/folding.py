"""Weights as studies of directions want them: LayerNorm folded into what reads it, writes centred.

Logit differences and probabilities stay as they are (paper section 0). Products with the
unembedding do not: only with these weights is ⟨what a head writes, W_U[token]⟩ a share of a logit.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ioi_fast.model.config import GPT2Config
from ioi_fast.model.weights import Block, Weights


def folded_weights(weights: Weights) -> Weights:
    """The same model with gains of 1 and biases of 0 in every LayerNorm before a layer's matrices,
    what is written to the residual stream centred over its width, and the unembedding centred over
    the vocabulary. Biases of values stay where they are.

    The final LayerNorm keeps a bias, divided by its gain: there is no bias of logits to take it.
    """
    exact = weights.to(None, torch.float64)
    gain, used = exact.ln_f_gain, exact.ln_f_gain != 0
    # Where a gain is 0 nothing but the bias is read: it stays as it is.
    own_gain = torch.where(used, gain, torch.ones_like(gain))
    unembed = exact.unembed * own_gain
    folded = Weights(
        wte=_centred(exact.wte),
        wpe=_centred(exact.wpe),
        blocks=tuple(_folded(block) for block in exact.blocks),
        ln_f_gain=used.to(gain.dtype),
        ln_f_bias=exact.ln_f_bias / own_gain,
        unembed=unembed - unembed.mean(0),
    )
    return folded.to(None, weights.wte.dtype)


def folded_config(config: GPT2Config) -> GPT2Config:
    """The configuration of folded weights: embedding and unembedding are no longer one."""
    return replace(config, tie_word_embeddings=False)


def _folded(block: Block) -> Block:
    return Block(
        ln_1_gain=torch.ones_like(block.ln_1_gain),
        ln_1_bias=torch.zeros_like(block.ln_1_bias),
        w_qkv=block.ln_1_gain[:, None] * block.w_qkv,
        b_qkv=block.b_qkv + block.ln_1_bias @ block.w_qkv,
        w_o=_centred(block.w_o),
        b_o=_centred(block.b_o),
        ln_2_gain=torch.ones_like(block.ln_2_gain),
        ln_2_bias=torch.zeros_like(block.ln_2_bias),
        w_in=block.ln_2_gain[:, None] * block.w_in,
        b_in=block.b_in + block.ln_2_bias @ block.w_in,
        w_out=_centred(block.w_out),
        b_out=_centred(block.b_out),
    )


def _centred(rows: Tensor) -> Tensor:
    return rows - rows.mean(-1, keepdim=True)
