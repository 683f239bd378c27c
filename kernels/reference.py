"""Every operation of the engine in a few lines of torch: the definition that all other forms are
held against. Plain, slow, in the precision of its inputs. Each `_delta` is f(base + δ) − f(base).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Linear(Protocol):
    """A product with a weight [in, out] that never changes."""

    def __call__(self, rows: Tensor) -> Tensor:
        """x @ weight + bias, [R, in] -> [R, out]."""

    def delta(self, rows: Tensor) -> Tensor:
        """δ @ weight, [R, in] -> [R, out]."""


# What a table of attention_delta says besides the index of a source.
LIVE, FROZEN = -1, -2

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "gelu": F.gelu,
    "relu": F.relu,
}


def layernorm(x_RD: Tensor, gain_D: Tensor, bias_D: Tensor, epsilon: float) -> Tensor:
    """LayerNorm over the last axis with the biased variance, [..., D] -> [..., D]."""
    return normalised(x_RD, epsilon) * gain_D + bias_D


def normalised(x_RD: Tensor, epsilon: float) -> Tensor:
    """x minus its mean over its standard deviation, [..., D] -> [..., D]."""
    centred_RD = x_RD - x_RD.mean(-1, keepdim=True)
    variance_R1 = centred_RD.square().mean(-1, keepdim=True)
    return centred_RD * torch.rsqrt(variance_R1 + epsilon)


def later_keys(q_NTHK: Tensor, k_NSHK: Tensor, at_NT: Tensor | None) -> Tensor:
    """Keys after a query, bool [N or 1, 1, T, S]; queries stand at 0..T−1 unless `at` says so."""
    if at_NT is None:
        at_NT = torch.arange(q_NTHK.shape[-3], device=q_NTHK.device)[None]
    return torch.arange(k_NSHK.shape[-3], device=k_NSHK.device) > at_NT[:, None, :, None]


def attention_pattern(
    q_NTHK: Tensor, k_NSHK: Tensor, scale: float, at_NT: Tensor | None = None
) -> Tensor:
    """Causal softmax weights of queries at positions `at_NT`, [..., N, H, T, S]."""
    scores_NHTS = torch.einsum("...thk,...shk->...hts", q_NTHK, k_NSHK) * scale
    return scores_NHTS.masked_fill(later_keys(q_NTHK, k_NSHK, at_NT), -torch.inf).softmax(-1)


def attention_mix(pattern_NHTS: Tensor, v_NSHK: Tensor) -> Tensor:
    """z: the values [..., N, S, H, K] weighted by the pattern, [..., N, T, H, K]."""
    return torch.einsum("...hts,...shk->...thk", pattern_NHTS, v_NSHK)


def spread(delta_NCHK: Tensor, changed_NC: Tensor, S: int) -> Tensor:
    """Private rows at their positions `changed` of S, zero elsewhere; slots at −1 are unused."""
    place_NCS = (changed_NC[:, :, None] == torch.arange(S)).to(delta_NCHK.dtype)
    return torch.einsum("...nchk,ncs->...nshk", delta_NCHK, place_NCS)


def layernorm_delta(x_RD: Tensor, delta_RD: Tensor, gain_D: Tensor, epsilon: float) -> Tensor:
    """Change of a LayerNorm's output when its input changes by delta (the bias cancels)."""
    zero = torch.zeros_like(gain_D)
    new_RD = layernorm(x_RD + delta_RD, gain_D, zero, epsilon)
    return new_RD - layernorm(x_RD, gain_D, zero, epsilon)


def gelu_delta(pre_RF: Tensor, delta_RF: Tensor, activation: str) -> Tensor:
    """Change of an activation's output when its input `pre` changes by delta."""
    function = ACTIVATIONS[activation]
    return function(pre_RF + delta_RF) - function(pre_RF)


def attention_delta(
    q_NTHK: Tensor,
    k_NSHK: Tensor,
    v_NSHK: Tensor,
    delta_q: Tensor,
    delta_k: Tensor,
    delta_v: Tensor,
    scale: float,
    at_NT: Tensor | None = None,
    changed_NC: Tensor | None = None,
    table: Tensor | None = None,
    sources: Tensor | None = None,
) -> Tensor:
    """Change of z, [..., N, T, H, K], when q, k and v change.

    Base q [N, T, H, K], k and v [N, S, H, K] are shared; delta_q [..., N, T, H, K], delta_k and
    delta_v [..., N, C, H, K] at positions `changed` (None: C = S, every position). Queries stand
    at `at` (None: 0..T−1). The table, int8 [... or 1, N, T, H], says of each row and head whether
    it is computed (LIVE), does not change (FROZEN), or takes the change that a source holds, by its
    index into sources [X, N, T, H, K].
    """
    if changed_NC is not None:
        S = k_NSHK.shape[1]
        delta_k, delta_v = spread(delta_k, changed_NC, S), spread(delta_v, changed_NC, S)
    new = attention_pattern(q_NTHK + delta_q, k_NSHK + delta_k, scale, at_NT)
    base = attention_pattern(q_NTHK, k_NSHK, scale, at_NT)
    delta_z = attention_mix(new, v_NSHK + delta_v) - attention_mix(base, v_NSHK)
    return by_table(delta_z, table, sources)


def by_table(delta_z: Tensor, table: Tensor | None, sources: Tensor | None) -> Tensor:
    """Changes of z [..., N, T, H, K] as the table of attention_delta has them."""
    if table is None:
        return delta_z
    delta_z = torch.where((table == LIVE)[..., None], delta_z, 0)
    for index, source in enumerate(() if sources is None else sources):
        delta_z = torch.where((table == index)[..., None], source, delta_z)
    return delta_z


def head_write(
    delta_PCD: Tensor, rows: Tensor, delta_z_CHK: Tensor, heads: Tensor, w_o_HKD: Tensor
) -> Tensor:
    """Adds to variant rows[i] what the change of z of head heads[i] writes, in place."""
    written_HCD = torch.einsum("chk,hkd->hcd", delta_z_CHK, w_o_HKD)
    return delta_PCD.index_add_(0, rows, written_HCD[heads])


def mlp(
    resid_mid_RD: Tensor,
    gain_D: Tensor,
    bias_D: Tensor,
    epsilon: float,
    w_in: Linear,
    w_out: Linear,
    activation: str,
) -> tuple[Tensor, Tensor]:
    """An MLP as it stands: the input of its activation [R, F] and its output [R, D]."""
    pre_RF = w_in(layernorm(resid_mid_RD, gain_D, bias_D, epsilon))
    return pre_RF, w_out(ACTIVATIONS[activation](pre_RF))


def mlp_delta(
    resid_mid_RD: Tensor,
    pre_RF: Tensor,
    delta_RD: Tensor,
    gain_D: Tensor,
    epsilon: float,
    w_in: Linear,
    w_out: Linear,
    activation: str,
    index_R: Tensor | None = None,
) -> Tensor:
    """Change of an MLP's output when its input changes by delta; `pre` is its base activation's
    input. The weights are products: w(rows) with the bias, w.delta(rows) without. With `index` [R]
    row r of delta [R, D] belongs to base row index[r].
    """
    if index_R is not None:
        resid_mid_RD, pre_RF = resid_mid_RD[index_R], pre_RF[index_R]
    normed_RD = layernorm_delta(resid_mid_RD, delta_RD, gain_D, epsilon)
    hidden_RF = gelu_delta(pre_RF, w_in.delta(normed_RD), activation)
    return w_out.delta(hidden_RF)


def add_mlp_delta(
    resid_mid_RD: Tensor,
    pre_RF: Tensor,
    delta_RD: Tensor,
    gain_D: Tensor,
    epsilon: float,
    w_in: Linear,
    w_out: Linear,
    activation: str,
) -> Tensor:
    """Adds to delta, in place, the change that it makes of an MLP's output."""
    given = (resid_mid_RD, pre_RF, delta_RD, gain_D, epsilon, w_in, w_out, activation)
    return delta_RD.add_(mlp_delta(*given))


def readout_delta(
    x_RD: Tensor, delta_RD: Tensor, gain_D: Tensor, epsilon: float, direction_RD: Tensor
) -> Tensor:
    """Change of ⟨final LayerNorm, direction⟩ when the final residual changes by delta, [R]."""
    return (layernorm_delta(x_RD, delta_RD, gain_D, epsilon) * direction_RD).sum(-1)
