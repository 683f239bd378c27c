"""Copy scores: does a head write the token that it reads? (paper section 3.1, appendix)"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.engine.clean_run import layernorm, tiles
from ioi_fast.ioi.walk import Walked, walk
from ioi_fast.model.gpt2 import GPT2
from ioi_fast.model.layers import mlp
from ioi_fast.own_settings import own_settings

_ROWS = 512  # whose logits stand at a time


@dataclass(frozen=True, slots=True, eq=False)
class CopyScores:
    """Shares of name tokens that a head's output on them has among its top tokens, all heads."""

    copies: Tensor  # [L, H]
    negative: Tensor  # [L, H] the same of the output with its sign turned
    names: int
    top: int


@torch.no_grad()
@own_settings()
def copy_scores(
    model: GPT2,
    pairs: PromptPairs,
    roles: Sequence[str] = ("IO", "S1", "S2"),
    top: int = 5,
    context: str = "block0",
) -> CopyScores:
    """Copy score of every head, and the negative one.

    What stands at the names after the first block ("block0"), or of their tokens alone, without
    position and attention ("free": embedding and first MLP, no b_V), is given to a head's value and
    output matrices and read by the final LayerNorm and unembedding; a hit is a name within the
    `top` tokens. Weights are folded and centred. Raises ValueError naming the argument. Source:
    Wang et al. 2022, section 3.1 and appendix.

    >>> copy_scores(model, pairs).copies[9, 9]    # doctest: +SKIP
    """
    absent = [role for role in roles if role not in pairs.positions]
    if absent or not roles:
        raise ValueError(f"roles must be of {', '.join(pairs.roles)}, got {list(roles)!r}")
    if not 1 <= top <= model.config.vocab_size:
        raise ValueError(f"top must be from 1 to {model.config.vocab_size}, got {top}")
    if context not in ("block0", "free"):
        raise ValueError(f"context must be 'block0' or 'free', got {context!r}")
    model.check_tokens(pairs.orig, "pairs.orig")
    folded = model.to(device="cpu", dtype=torch.float32).folded()
    make = _after_block_0 if context == "block0" else _of_tokens_alone
    resid_RD, tokens_R = make(folded, pairs, roles)
    config = folded.config
    none = torch.zeros_like(resid_RD[0])
    normed = layernorm(resid_RD, none + 1, none, config.layer_norm_epsilon)
    found = torch.zeros(2, config.n_layer, config.n_head, dtype=torch.float32)
    for layer in range(config.n_layer):
        written_HRD = _written(folded, layer, normed, with_bias=context == "block0")
        for head in range(config.n_head):
            found[:, layer, head] = _hits(folded, written_HRD[head], tokens_R, top)
    return CopyScores(found[0], found[1], len(tokens_R), top)


def _after_block_0(model: GPT2, pairs: PromptPairs, roles: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Residual after the first block at the names, [R, D], and their tokens [R]."""
    rows, tokens = [], []
    for walked in walk(model, pairs.orig, 1):
        resid = _after(walked)
        for role in roles:
            at = pairs.positions[role][walked.prompts]
            here = torch.arange(len(at))
            rows.append(resid[here, at])
            tokens.append(pairs.orig[walked.prompts][here, at])
    return torch.cat(rows), torch.cat(tokens)


def _after(walked: Walked) -> Tensor:
    state = walked.state
    return (state.resid_mid + state.mlp_out).unflatten(0, (-1, walked.T))


def _of_tokens_alone(
    model: GPT2, pairs: PromptPairs, roles: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """The distinct names' embeddings and what the first MLP makes of them, [R, D], and tokens."""
    here = torch.arange(len(pairs))
    tokens = torch.cat([pairs.orig[here, pairs.positions[role]] for role in roles]).unique()
    embedded = model.weights.wte[tokens]
    return embedded + mlp(embedded, model.weights.blocks[0], model.config), tokens


def _written(model: GPT2, layer: int, normed_RD: Tensor, with_bias: bool) -> Tensor:
    """What every head would write of these rows if it attended to them alone, [H, R, D]."""
    block, H = model.weights.blocks[layer], model.config.n_head
    w_v, b_v = (part.chunk(3, -1)[2] for part in (block.w_qkv, block.b_qkv))
    value_RHK = (normed_RD @ w_v + (b_v if with_bias else 0)).unflatten(-1, (H, -1))
    return torch.bmm(value_RHK.transpose(0, 1), block.w_o.unflatten(0, (H, -1)))


def _hits(model: GPT2, written_RD: Tensor, tokens_R: Tensor, top: int) -> Tensor:
    """Shares of rows that have their token within the top, with both signs, [2]."""
    weights, config = model.weights, model.config
    none, found = torch.zeros_like(weights.ln_f_bias), torch.zeros(2, dtype=torch.float32)
    bias_V = weights.unembed @ weights.ln_f_bias
    for some in tiles(len(tokens_R), _ROWS):
        final = layernorm(written_RD[some], weights.ln_f_gain, none, config.layer_norm_epsilon)
        logits_RV = final @ weights.unembed.T
        for sign, row in ((1, 0), (-1, 1)):
            signed = sign * logits_RV + bias_V
            own = signed.gather(1, tokens_R[some, None])
            found[row] += ((signed > own).sum(1) < top).sum()
    return found / len(tokens_R)
