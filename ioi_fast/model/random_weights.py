"""Random weights that exercise every term of GPT-2: nothing is zero, one or uniform."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ioi_fast.model.config import GPT2Config
from ioi_fast.model.weights import Block, Weights
from ioi_fast.outside.whole_numbers import whole_number
from ioi_fast.own_settings import own_settings

# Scores q·k/√K get about this standard deviation, so that one key takes most of the weight.
_SCORE_STD = 3.5


def _checked_seed(seed: object) -> int:
    """The seed as torch takes it."""
    whole = whole_number(seed)
    if whole is None:
        raise TypeError(f"seed must be an integer, got {seed!r}")
    if not -(2**63) <= whole < 2**64:
        raise ValueError(f"seed must be from -2**63 to 2**64 - 1, got {whole}")
    return whole


@own_settings()
def random_weights(config: GPT2Config, seed: int) -> Weights:
    """Weights of a given shape; equal seeds give equal weights under one version of torch.

    Embeddings have standard deviation 0.1, every sub-layer adds about as much, so that early heads
    still matter at the end. Raises TypeError or ValueError naming `config` or `seed`.
    """
    if not isinstance(config, GPT2Config):
        raise TypeError(f"config must be a GPT2Config, got {config!r}")
    generator = torch.Generator().manual_seed(_checked_seed(seed))

    def normal(*shape: int, std: float) -> Tensor:
        return torch.empty(shape, dtype=torch.float32).normal_(0, std, generator=generator)

    def gain(size: int) -> Tensor:
        return torch.empty(size, dtype=torch.float32).uniform_(0.6, 1.4, generator=generator)

    D, F = config.n_embd, config.d_mlp
    # A scale that the config switches off must not blow the scores up or flatten them.
    wide = 1.0 if config.scale_attn_weights else config.d_head**-0.25

    def block(layer: int) -> Block:
        deep = math.sqrt(layer + 1) if config.scale_attn_by_inverse_layer_idx else 1.0
        w_qk = normal(D, 2 * D, std=math.sqrt(_SCORE_STD / D) * wide * deep)
        w_v = normal(D, D, std=1 / math.sqrt(D))
        return Block(
            ln_1_gain=gain(D),
            ln_1_bias=normal(D, std=0.1),
            w_qkv=torch.cat([w_qk, w_v], 1),
            b_qkv=normal(3 * D, std=0.1),
            w_o=normal(D, D, std=0.1 / math.sqrt(D)),
            b_o=normal(D, std=0.02),
            ln_2_gain=gain(D),
            ln_2_bias=normal(D, std=0.1),
            w_in=normal(D, F, std=1 / math.sqrt(D)),
            b_in=normal(F, std=0.1),
            w_out=normal(F, D, std=0.15 / math.sqrt(F)),
            b_out=normal(D, std=0.02),
        )

    wte = normal(config.vocab_size, D, std=0.1)
    return Weights(
        wte=wte,
        wpe=normal(config.n_positions, D, std=0.05),
        blocks=tuple(block(layer) for layer in range(config.n_layer)),
        ln_f_gain=gain(D),
        ln_f_bias=normal(D, std=0.1),
        unembed=wte if config.tie_word_embeddings else normal(config.vocab_size, D, std=0.1),
    )
