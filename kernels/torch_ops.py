"""The operations in difference form in plain torch: what runs where there is no compiler.

Same names and meaning as in the reference, but f(base + δ) − f(base) is never formed by subtracting
two nearly equal numbers, so that the error follows the size of δ. Base tensors broadcast over the
variants in front: base [N, ...], delta [P, N, ...] or [N, ...].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from ioi_fast.kernels import reference
from ioi_fast.kernels.packed_linear import PackedLinear
from ioi_fast.kernels.reference import Linear, by_table, later_keys, normalised

# What is the same as in the definition stands here under its name too: the table of a backend asks
# for every operation. `linear` packs a weight for products.
__all__ = [
    "add_mlp_delta",
    "attention",
    "attention_delta",
    "gelu_delta",
    "head_write",
    "layernorm_delta",
    "linear",
    "mlp",
    "mlp_delta",
    "readout_delta",
    "workspace",
]

linear = PackedLinear
workspace = nullcontext  # memory is the C library's

# Rows of a hidden layer that are there at a time: it is four times as wide as what goes in and out,
# and stays in cache between the two products.
_ROWS = 512

# gelu_new(x) = x·σ(a) with a = 2√(2/π)·(x + 0.044715·x³).
_LINEAR = 2 * math.sqrt(2 / math.pi)
_CUBIC = _LINEAR * 0.044715
# σ(±40) is 4e-18: beyond it σ is 0 or 1 for every purpose, and exp stays far from overflow.
_SATURATED = 40.0
# Relative change of a variance from which delta cancels what it is added to.
_CANCELLED = -0.5
# A score that moves further counts as far.
_NEAR = 1.0
# So much of the sum of softmax weights changed: all of them did.
_MOST = 0.5
# Gauss–Legendre nodes and weights on [0, 1], for the integral of the normal density.
_NODES = (0.06943184420297371, 0.33000947820757187, 0.6699905217924281, 0.9305681557970263)
_NODE_WEIGHTS = (0.17392742256872692, 0.32607257743127307, 0.32607257743127307, 0.17392742256872692)


def layernorm_delta(x_RD: Tensor, delta_RD: Tensor, gain_D: Tensor, epsilon: float) -> Tensor:
    """Change of a LayerNorm's output when its input changes by delta (the bias cancels).

    With c = x − mean(x), r = 1/√(var + ε) and w the change of the variance, r' = r/s = r·(1 + f)
    for u = w·r², s = √(1 + u), f = 1/s − 1 = −u/(s·(1 + s)). Where delta cancels most of
    x, u is near −1 and says little about the new variance: both norms are taken and subtracted.
    """
    centred_RD = x_RD - x_RD.mean(-1, keepdim=True)
    r_R1 = torch.rsqrt(centred_RD.square().mean(-1, keepdim=True) + epsilon)
    move_RD = delta_RD - delta_RD.mean(-1, keepdim=True)
    u_R1 = torch.addcmul(move_RD, centred_RD, _two(x_RD)).mul_(move_RD).mean(-1, keepdim=True)
    u_R1 = u_R1 * r_R1.square()
    cancelled_R1, subtracted_RD = ~(u_R1 > _CANCELLED), None
    if cancelled_R1.any():
        new_RD = normalised(x_RD + delta_RD, epsilon)
        subtracted_RD = (new_RD - centred_RD * r_R1) * gain_D
    s_R1 = torch.sqrt(1 + u_R1)
    f_R1 = -u_R1 / (s_R1 * (1 + s_R1))
    out_RD = move_RD.mul_(r_R1 / s_R1).addcmul_(centred_RD * r_R1, f_R1).mul_(gain_D)
    return out_RD if subtracted_RD is None else torch.where(cancelled_R1, subtracted_RD, out_RD)


def _two(like: Tensor) -> Tensor:
    return torch.full((), 2.0, dtype=like.dtype)


def gelu_delta(pre_RF: Tensor, delta_RF: Tensor, activation: str) -> Tensor:
    """Change of an activation's output when its input `pre` changes by delta."""
    return _ACTIVATION_DELTAS[activation](pre_RF, delta_RF)


def _tanh_gelu_delta(x: Tensor, delta: Tensor) -> Tensor:
    """δ·σ(a) + (x + δ)·δσ, where δσ follows from b = δa without cancellation:

    δσ = σ(a)·σ(−a)·(exp(b) − 1)/(σ(−a) + σ(a)·exp(b)), exp(b) − 1 = tanh(b/2)·(exp(b) + 1).
    """
    exact_a = x * (_LINEAR + _CUBIC * x.square())
    a = exact_a.clamp(-_SATURATED, _SATURATED)
    sigma, opposite = torch.sigmoid(a), torch.sigmoid(-a)
    # b = δ·(L + C·(3x² + 3xδ + δ²)), and what clamping took from a where it is saturated.
    b = torch.addcmul(3 * _CUBIC * x, delta, torch.full((), _CUBIC, dtype=x.dtype))
    b = b.mul_(delta).add_(_LINEAR + 3 * _CUBIC * x.square()).mul_(delta).add_(exact_a - a)
    b = torch.clamp(b, -_SATURATED - a, _SATURATED - a)
    exp_b = torch.exp(b)
    denominator = torch.addcmul(opposite, exp_b, sigma)
    change = exp_b.add_(1).mul_(b.mul_(0.5).tanh_()).mul_(sigma * opposite).div_(denominator)
    return change.mul_(x + delta).addcmul_(delta, sigma)


def _erf_gelu_delta(x: Tensor, delta: Tensor) -> Tensor:
    """δ·Φ(x) + (x + δ)·δΦ; δΦ is the integral of the normal density, by quadrature for small δ."""
    phi = torch.special.ndtr(x)
    integral = torch.zeros_like(delta)
    for node, weight in zip(_NODES, _NODE_WEIGHTS, strict=True):
        integral += weight * torch.exp(-0.5 * (x + node * delta).square())
    small = integral.mul_(delta) / math.sqrt(2 * math.pi)
    change = torch.where(delta.abs() < 0.5, small, torch.special.ndtr(x + delta) - phi)
    return delta * phi + (x + delta) * change


def _relu_delta(x: Tensor, delta: Tensor) -> Tensor:
    return torch.where(x > 0, torch.maximum(delta, -x), (x + delta).clamp(min=0))


_ACTIVATION_DELTAS = {
    "gelu_new": _tanh_gelu_delta,
    "gelu_pytorch_tanh": _tanh_gelu_delta,
    "gelu": _erf_gelu_delta,
    "relu": _relu_delta,
}


def attention(q_NTHK: Tensor, k_NTHK: Tensor, v_NTHK: Tensor, scale: float) -> Tensor:
    """z of every query over the keys up to its own, [N, T, H, K]."""
    heads = (rows.transpose(1, 2) for rows in (q_NTHK, k_NTHK, v_NTHK))
    return F.scaled_dot_product_attention(*heads, is_causal=True, scale=scale).transpose(1, 2)


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
    """Change of z when q, k and v change; shapes as in the reference.

    δs = (δq·K + q'·δK)·scale moves the scores; `_pattern_change` makes of it the change of weights.
    """
    shape = delta_q.shape
    q, k, v = (t.transpose(1, 2) for t in (q_NTHK, k_NSHK, v_NSHK))
    dq, dk, dv = (t.reshape(-1, *t.shape[-4:]).transpose(2, 3) for t in (delta_q, delta_k, delta_v))
    later = later_keys(q_NTHK, k_NSHK, at_NT)
    scores = (q @ k.mT).mul_(scale).masked_fill_(later, -torch.inf)
    pattern = scores.softmax(-1)
    private = (q + dq) @ dk.mT
    if changed_NC is None:
        move = shared_product(dq, k.mT).add_(private)
    else:
        used = changed_NC >= 0
        columns = changed_NC.clamp(min=0)[:, None, None, :].expand_as(private)
        private = private.mul_(used[:, None, None, :])
        move = shared_product(dq, k.mT).scatter_add_(-1, columns, private)
    move = move.mul_(scale).masked_fill_(later, 0)
    change = _pattern_change(scores, pattern, move)
    weights = pattern + change
    if changed_NC is not None:
        weights = weights.gather(-1, columns).mul_(used[:, None, None, :])
    delta_z = shared_product(change, v).add_(weights @ dv)
    return by_table(delta_z.transpose(2, 3).reshape(shape), table, sources)


def _pattern_change(scores: Tensor, pattern: Tensor, move: Tensor) -> Tensor:
    """Change of softmax weights a [..., S] when scores s move by δs; hidden keys have score −∞.

    With c = a·(exp(δs) − 1) the new weights are (a + c)/Σ(a + c), so that δa = (c − a·Σc)/Σ(a + c).
    δs is shifted, which changes no weight, until the largest new score is as large as the largest
    old one: nothing overflows and the sum can't vanish. A weight whose score moves far takes its
    c from both scores, since it may be 0 before. A weight that stays is no difference of two nearly
    equal numbers, however far the scores of others move; only where most of the sum changes, and
    with it every weight, are new and old weights subtracted.
    """
    moved = scores + move
    moved_top = moved.amax(-1, keepdim=True)
    grown = torch.exp(moved - moved_top) * pattern.amax(-1, keepdim=True)
    move = move - (moved_top - scores.amax(-1, keepdim=True))
    far = move.abs() > _NEAR
    c = torch.where(far, grown - pattern, pattern * torch.expm1(move.clamp(-_NEAR, _NEAR)))
    total = torch.where(far, grown, pattern + c).sum(-1, keepdim=True)
    changed = c.sum(-1, keepdim=True)
    little = (c - pattern * changed) / total
    change = torch.where(changed.abs() > _MOST, (pattern + c) / total - pattern, little)
    # Changes of weights sum to zero. That of the largest weight would be a difference of two
    # numbers near 1; from the others it comes as exact as they are.
    largest = torch.minimum(pattern, pattern + change).argmax(-1, keepdim=True)
    change.scatter_(-1, largest, 0)
    return change.scatter_(-1, largest, -change.sum(-1, keepdim=True))


def shared_product(rows: Tensor, base: Tensor) -> Tensor:
    """rows [P, N, H, T, X] @ base [N, H, X, Y]: all variants of a prompt against one base."""
    P, N, H, T, X = rows.shape
    together = rows.permute(1, 2, 0, 3, 4).reshape(N, H, P * T, X) @ base
    return together.view(N, H, P, T, -1).permute(2, 0, 1, 3, 4).contiguous()


def head_write(
    delta_PCD: Tensor, rows: Tensor, delta_z_CHK: Tensor, heads: Tensor, w_o_HKD: Tensor
) -> Tensor:
    """Adds to variant rows[i] what the change of z of head heads[i] writes, in place.

    Each head is multiplied once, however many variants hold it.
    """
    used, which = heads.unique(return_inverse=True)
    written_HCD = torch.bmm(delta_z_CHK[:, used].transpose(0, 1), w_o_HKD[used])
    return delta_PCD.index_add_(0, rows, written_HCD[which])


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
    pre_RF = w_in(reference.layernorm(resid_mid_RD, gain_D, bias_D, epsilon))
    out_RD = torch.empty_like(resid_mid_RD)
    for start in range(0, len(pre_RF), _ROWS):
        rows = slice(start, start + _ROWS)
        out_RD[rows] = w_out(reference.ACTIVATIONS[activation](pre_RF[rows]))
    return pre_RF, out_RD


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
    layernorm: Callable[..., Tensor] = layernorm_delta,
    gelu: Callable[..., Tensor] = gelu_delta,
) -> Tensor:
    """Change of an MLP's output: resid_mid [N, D], pre [N, F], delta [..., N, D] -> [..., N, D].

    With `index` [R] row r of delta [R, D] belongs to base row index[r]. A device with forms of its
    own for the steps between the products passes them.
    """

    def rows(resid_mid: Tensor, pre: Tensor, delta: Tensor) -> Tensor:
        normed = layernorm(resid_mid, delta, gain_D, epsilon)
        return rows_product(gelu(pre, rows_product(normed, w_in), activation), w_out)

    if index_R is None:
        return rows(resid_mid_RD, pre_RF, delta_RD)
    out_RD = torch.empty_like(delta_RD)
    for start in range(0, len(index_R), _ROWS):
        some = slice(start, start + _ROWS)
        base = index_R[some]
        out_RD[some] = rows(resid_mid_RD[base], pre_RF[base], delta_RD[some])
    return out_RD


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


def rows_product(rows: Tensor, weight: Linear) -> Tensor:
    """rows [..., in] @ weight [in, out] -> [..., out], as one product of all rows."""
    return weight.delta(rows.reshape(-1, rows.shape[-1])).view(*rows.shape[:-1], -1)


def readout_delta(
    x_RD: Tensor, delta_RD: Tensor, gain_D: Tensor, epsilon: float, direction_RD: Tensor
) -> Tensor:
    """Change of ⟨final LayerNorm, direction⟩ when the final residual changes by delta, [R]."""
    return (layernorm_delta(x_RD, delta_RD, gain_D, epsilon) * direction_RD).sum(-1)
