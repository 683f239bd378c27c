"""The operations in difference form for CPUs, as C++ kernels.

Raises BuildError from `load_kernels` where the kernels can't be built; `torch_ops` needs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ioi_fast.kernels import torch_ops
from ioi_fast.kernels.choose_linear import linear
from ioi_fast.kernels.own_threads import set_own_threads
from ioi_fast.kernels.panel_linear import PanelLinear
from ioi_fast.kernels.reference import Linear

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


def layernorm_delta(x_RD: Tensor, delta_RD: Tensor, gain_D: Tensor, epsilon: float) -> Tensor:
    """Change of a LayerNorm's output: x [N, D], delta [..., N, D] -> [..., N, D]."""
    return torch.ops.ioi_fast.layernorm_delta(x_RD, delta_RD, gain_D, epsilon)


def gelu_delta(pre_RF: Tensor, delta_RF: Tensor, activation: str) -> Tensor:
    """Change of an activation's output when its input changes by delta, which is overwritten."""
    return torch.ops.ioi_fast.gelu_delta_(pre_RF, delta_RF.contiguous(), activation)


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
    if isinstance(w_in, PanelLinear):
        weights = (w_in.panels, w_in.bias, w_out.panels, w_out.bias, w_in.width)
        return torch.ops.ioi_fast.mlp(resid_mid_RD, gain_D, bias_D, *weights, epsilon, activation)
    return torch_ops.mlp(resid_mid_RD, gain_D, bias_D, epsilon, w_in, w_out, activation)


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
    """Change of an MLP's output; one kernel on weights in panels.

    With `index` [R], ascending for speed, row r of delta [R, D] belongs to base row index[r].
    """
    if isinstance(w_in, PanelLinear):
        weights = (w_in.panels, w_out.panels, epsilon, index_R, activation, w_in.rounded)
        return torch.ops.ioi_fast.mlp_delta(resid_mid_RD, pre_RF, delta_RD, gain_D, *weights)
    given = (resid_mid_RD, pre_RF, delta_RD, gain_D, epsilon, w_in, w_out, activation, index_R)
    return torch_ops.mlp_delta(*given, layernorm_delta, gelu_delta)


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
    if isinstance(w_in, PanelLinear):
        weights = (w_in.panels, w_out.panels, epsilon, activation, w_in.rounded)
        return torch.ops.ioi_fast.add_mlp_delta_(resid_mid_RD, pre_RF, delta_RD, gain_D, *weights)
    given = (resid_mid_RD, pre_RF, delta_RD, gain_D, epsilon, w_in, w_out, activation)
    return torch_ops.add_mlp_delta(*given, layernorm_delta, gelu_delta)


def attention(q_NTHK: Tensor, k_NTHK: Tensor, v_NTHK: Tensor, scale: float) -> Tensor:
    """z of every query over the keys up to its own, [N, T, H, K]; the same for any threads."""
    return torch.ops.ioi_fast.attention(q_NTHK, k_NTHK, v_NTHK, scale)


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
    """Change of z when q, k and v change; shapes as in the reference, one axis of variants or none.

    One kernel: a prompt's keys and values serve all its variants, and a head that the table
    freezes or takes from a source is not read.
    """
    deltas = [t if t.dim() == 5 else t[None] for t in (delta_q, delta_k, delta_v)]
    if table is not None and table.dim() == 3:
        table = table[None]
    base = (q_NTHK, k_NSHK, v_NSHK)
    out = torch.ops.ioi_fast.attention_delta(
        *base, *deltas, scale, at_NT, changed_NC, table, sources
    )
    return out.view(delta_q.shape)


def head_write(
    delta_PCD: Tensor, rows: Tensor, delta_z_CHK: Tensor, heads: Tensor, w_o_HKD: Tensor
) -> Tensor:
    """Adds to variant rows[i] what the change of z of head heads[i] writes, in place."""
    return torch.ops.ioi_fast.head_write_(delta_PCD, rows, delta_z_CHK, heads, w_o_HKD)


def readout_delta(
    x_RD: Tensor, delta_RD: Tensor, gain_D: Tensor, epsilon: float, direction_RD: Tensor
) -> Tensor:
    """Change of ⟨final LayerNorm, direction⟩ when the final residual changes by delta, [..., N]."""
    return torch.ops.ioi_fast.readout_delta(x_RD, delta_RD, gain_D, epsilon, direction_RD)


@contextmanager
def workspace() -> Iterator[None]:
    """While it is open the large tensors of this process take no more memory than they hold.

    Pages of freed tensors go on to the next ones; at the end all of them go back to the system.
    """
    threads = torch.get_num_threads()
    torch.ops.ioi_fast.open_workspace()
    if torch.get_num_threads() != threads:
        set_own_threads(threads)  # a new thread's first kernel takes the number of all threads
    try:
        yield
    finally:
        torch.ops.ioi_fast.close_workspace()
