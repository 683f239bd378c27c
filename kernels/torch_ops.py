"""The operations in difference form in plain torch: what runs where there is no compiler.

Same names and meaning as in the reference, but f(base + δ) − f(base) is never formed by subtracting
two nearly equal numbers, so that the error follows the size of δ. Base tensors broadcast over the
variants in front: base [N, ...], delta [P, N, ...] or [N, ...]. All run in blocks (row_blocks.py):
beside what comes out no operation takes more than a few megabytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ioi_fast.kernels import reference
from ioi_fast.kernels.packed_linear import PackedLinear
from ioi_fast.kernels.reference import Linear, normalised
from ioi_fast.kernels.row_blocks import (
    FLOATS,
    PRODUCT_ROWS,
    blocks,
    by_variant,
    empty_rows,
    in_blocks,
    slices,
)
from ioi_fast.kernels.torch_attention import attention, attention_delta

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

# gelu_new(x) = x·σ(a) with a = 2√(2/π)·(x + 0.044715·x³).
_LINEAR = 2 * math.sqrt(2 / math.pi)
_CUBIC = _LINEAR * 0.044715
# σ(±40) is 4e-18: beyond it σ is 0 or 1 for every purpose, and exp stays far from overflow.
_SATURATED = 40.0
# Relative change of a variance from which delta cancels what it is added to.
_CANCELLED = -0.5
# Gauss–Legendre nodes and weights on [0, 1], for the integral of the normal density.
_NODES = (0.06943184420297371, 0.33000947820757187, 0.6699905217924281, 0.9305681557970263)
_NODE_WEIGHTS = (0.17392742256872692, 0.32607257743127307, 0.32607257743127307, 0.17392742256872692)


def layernorm_delta(x_RD: Tensor, delta_RD: Tensor, gain_D: Tensor, epsilon: float) -> Tensor:
    """Change of a LayerNorm's output when its input changes by delta (the bias cancels).

    With c = x − mean(x), r = 1/√(var + ε) and w the change of the variance, r' = r/s = r·(1 + f)
    for u = w·r², s = √(1 + u), f = 1/s − 1 = −u/(s·(1 + s)). Where delta cancels most of
    x, u is near −1 and says little about the new variance: both norms are taken and subtracted.
    """

    def change(x: Tensor, delta: Tensor) -> Tensor:
        return _layernorm_delta(x, delta, gain_D, epsilon)

    return in_blocks(change, [x_RD], delta_RD, empty_rows(delta_RD))


def _layernorm_delta(x_RD: Tensor, delta_RD: Tensor, gain_D: Tensor, epsilon: float) -> Tensor:
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
    """Change of an activation's output when its input changes by delta, which is overwritten."""
    delta_RF = delta_RF.contiguous()
    return in_blocks(_ACTIVATION_DELTAS[activation], [pre_RF], delta_RF, delta_RF)


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


def head_write(
    delta_PCD: Tensor, rows: Tensor, delta_z_CHK: Tensor, heads: Tensor, w_o_HKD: Tensor
) -> Tensor:
    """Adds to variant rows[i] what the change of z of head heads[i] writes, in place."""
    (C, _, K), D = delta_z_CHK.shape, delta_PCD.shape[-1]
    for some in slices(len(rows), FLOATS // max(1, (C + K) * D)):
        z_WCK = delta_z_CHK[:, heads[some]].transpose(0, 1)
        delta_PCD.index_add_(0, rows[some], torch.bmm(z_WCK, w_o_HKD[heads[some]]))
    return delta_PCD


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
    normed_RD = F.layer_norm(resid_mid_RD, gain_D.shape, gain_D, bias_D, epsilon)
    pre_RF, out_RD = w_in(normed_RD), empty_rows(resid_mid_RD)
    for some in slices(len(pre_RF), PRODUCT_ROWS):
        out_RD[some] = w_out(reference.ACTIVATIONS[activation](pre_RF[some]))
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
    mlp = _Mlp(gain_D, epsilon, w_in, w_out, activation, layernorm, gelu)
    out_RD = empty_rows(delta_RD)
    if index_R is not None:
        for some in slices(len(index_R), PRODUCT_ROWS):
            base = index_R[some]
            out_RD[some] = mlp.change(resid_mid_RD[base], pre_RF[base], delta_RD[some])
        return out_RD
    delta_PND, out_PND = by_variant(delta_RD), by_variant(out_RD)
    for some, cells in blocks(*delta_PND.shape[:2], PRODUCT_ROWS):
        rows = (resid_mid_RD[cells], pre_RF[cells], delta_PND[some, cells])
        out_PND[some, cells] = mlp.change(*rows)
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
    layernorm: Callable[..., Tensor] = layernorm_delta,
    gelu: Callable[..., Tensor] = gelu_delta,
) -> Tensor:
    """Adds to delta, in place, the change that it makes of an MLP's output."""
    mlp = _Mlp(gain_D, epsilon, w_in, w_out, activation, layernorm, gelu)
    delta_PND = delta_RD.view(delta_RD.shape[:-2].numel(), *delta_RD.shape[-2:])
    for some, cells in blocks(*delta_PND.shape[:2], PRODUCT_ROWS):
        rows = delta_PND[some, cells]
        rows += mlp.change(resid_mid_RD[cells], pre_RF[cells], rows)
    return delta_RD


@dataclass(frozen=True, slots=True, eq=False)
class _Mlp:
    """An MLP's weights and the forms of its steps."""

    gain_D: Tensor
    epsilon: float
    w_in: Linear
    w_out: Linear
    activation: str
    layernorm: Callable[..., Tensor]
    gelu: Callable[..., Tensor]

    def change(self, resid_mid: Tensor, pre: Tensor, delta: Tensor) -> Tensor:
        """Of its output, for a block of rows."""
        normed = self.layernorm(resid_mid, delta, self.gain_D, self.epsilon)
        hidden = rows_product(normed, self.w_in)
        return rows_product(self.gelu(pre, hidden, self.activation), self.w_out)


def rows_product(rows: Tensor, weight: Linear) -> Tensor:
    """rows [..., in] @ weight [in, out] -> [..., out], as one product of all rows."""
    return weight.delta(rows.reshape(-1, rows.shape[-1])).view(*rows.shape[:-1], -1)


def readout_delta(
    x_RD: Tensor, delta_RD: Tensor, gain_D: Tensor, epsilon: float, direction_RD: Tensor
) -> Tensor:
    """Change of ⟨final LayerNorm, direction⟩ when the final residual changes by delta, [R]."""

    def change(x: Tensor, direction: Tensor, delta: Tensor) -> Tensor:
        return (_layernorm_delta(x, delta, gain_D, epsilon) * direction).sum(-1)

    return in_blocks(change, [x_RD, direction_RD], delta_RD, empty_rows(delta_RD[..., 0]))
