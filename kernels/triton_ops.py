"""The operations in difference form as Triton kernels; shapes as in the reference.

A shape that no launch covers takes torch_ops. Importing it needs triton.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
import triton
from torch import Tensor

from ioi_fast.kernels import torch_ops, triton_tiles, tuned_tiles
from ioi_fast.kernels.dense_linear import DenseLinear
from ioi_fast.kernels.reference import LIVE
from ioi_fast.kernels.triton_attention import attention_delta_last, attention_delta_queries
from ioi_fast.kernels.triton_attention_long import attention_delta_long
from ioi_fast.kernels.triton_products import head_write_kernel, mlp_in_delta_kernel
from ioi_fast.kernels.triton_rows import (
    gelu_delta_kernel,
    layernorm_delta_kernel,
    readout_delta_kernel,
    to_tf32_kernel,
)
from ioi_fast.kernels.triton_tiles import Launch

_TANH_FORMS = ("gelu_new", "gelu_pytorch_tanh")

# Runs are few rows: their products and their attention are the library's.
mlp, attention = torch_ops.mlp, torch_ops.attention


@contextmanager
def workspace(device: torch.device) -> Iterator[None]:
    """While a call runs, new tensors are made on its device and kernels are launched there. Memory
    is torch's."""
    launched = nullcontext()
    if device.type == "cuda" and torch.cuda.is_available():
        launched = torch.cuda.device(device)
    with device, launched:
        yield


def launch_kernel(
    kernel: Callable, programs: int, launch: Launch, *arguments: object, **more: object
) -> None:
    """Runs so many programs of a kernel."""
    if programs:
        # Fusing products with sums is part of what a result is: said here, not left to a default.
        settings = {"num_warps": launch.warps, "num_stages": launch.stages}
        settings["enable_fp_fusion"] = True
        if torch.version.cuda is not None:
            settings["maxnreg"] = triton_tiles.MOST_REGISTERS
        kernel[(programs,)](*arguments, **launch.constants, **more, **settings)


def to_tf32(rows: Tensor) -> Tensor:
    """Values rounded to TF32, to nearest even, in the same shape: some GPUs drop the bits that TF32
    has not, which is twice the error and all to one side."""
    out, size = torch.empty_like(rows, memory_format=torch.contiguous_format), rows.numel()
    programs = triton.cdiv(size, triton_tiles.GELU.constants["BLOCK"])
    launch_kernel(to_tf32_kernel, programs, triton_tiles.GELU, rows.contiguous(), out, size)
    return out


def linear(weight: Tensor, bias: Tensor | None, precision: str = "ieee") -> DenseLinear:
    """A product with a weight [in, out] that never changes."""
    return DenseLinear(weight, bias, precision, to_tf32)


def layernorm_delta(x_RD: Tensor, delta_RD: Tensor, gain_D: Tensor, epsilon: float) -> Tensor:
    """Change of a LayerNorm's output: x [N, D], delta [..., N, D] -> [..., N, D]."""
    N, D = x_RD.shape
    launch = triton_tiles.row_launch(D)
    if launch is None:
        return torch_ops.layernorm_delta(x_RD, delta_RD, gain_D, epsilon)
    launch = tuned_tiles.tuned("layernorm_delta", None, (D,), x_RD.device, launch)
    delta_RD = delta_RD.contiguous()
    out = torch.empty_like(delta_RD)
    given = (x_RD.contiguous(), delta_RD, gain_D.contiguous(), out, N, D, epsilon)
    launch_kernel(layernorm_delta_kernel, delta_RD.numel() // D, launch, *given)
    return out


def readout_delta(
    x_RD: Tensor, delta_RD: Tensor, gain_D: Tensor, epsilon: float, direction_RD: Tensor
) -> Tensor:
    """Change of ⟨final LayerNorm, direction⟩ when the final residual changes by delta, [..., N]."""
    N, D = x_RD.shape
    launch = triton_tiles.row_launch(D)
    if launch is None:
        return torch_ops.readout_delta(x_RD, delta_RD, gain_D, epsilon, direction_RD)
    launch = tuned_tiles.tuned("readout_delta", None, (D,), x_RD.device, launch)
    out = torch.empty(delta_RD.shape[:-1], dtype=torch.float32, device=delta_RD.device)
    rows = (x_RD.contiguous(), delta_RD.contiguous(), gain_D.contiguous())
    given = (*rows, direction_RD.contiguous(), out, N, D, epsilon)
    launch_kernel(readout_delta_kernel, out.numel(), launch, *given)
    return out


def gelu_delta(pre_RF: Tensor, delta_RF: Tensor, activation: str) -> Tensor:
    """Change of an activation's output when its input changes by delta."""
    if activation not in _TANH_FORMS:
        return torch_ops.gelu_delta(pre_RF, delta_RF, activation)
    delta_RF = delta_RF.contiguous()
    out, size = torch.empty_like(delta_RF), delta_RF.numel()
    programs = triton.cdiv(size, triton_tiles.GELU.constants["BLOCK"])
    given = (pre_RF.contiguous(), delta_RF, out, pre_RF.numel(), size)
    launch_kernel(gelu_delta_kernel, programs, triton_tiles.GELU, *given)
    return out


def mlp_in_delta(
    pre_RF: Tensor,
    rows_RD: Tensor,
    weight_DF: Tensor,
    index_R: Tensor | None = None,
    precision: str = "ieee",
) -> Tensor:
    """Change of gelu_new(pre) when its input changes by rows @ weight, [R, F].

    Row r belongs to base row index[r], or to row r mod N of pre [N, F]: those that share one are
    its variants. With "tf32" the weight is rounded already, as DenseLinear's, and so is the result.
    """
    (R, D), F = rows_RD.shape, pre_RF.shape[1]
    if precision == "tf32":
        rows_RD = to_tf32(rows_RD)
    if index_R is None:
        index_R = torch.arange(len(pre_RF), device=rows_RD.device)
    N = len(index_R)
    P, out = R // max(1, N), rows_RD.new_empty(R, F)
    launch = triton_tiles.product_launch(P, N)
    launch = tuned_tiles.tuned("mlp_in_delta", precision, (P, N, D, F), pre_RF.device, launch)
    sizes = launch.constants
    tiles = triton.cdiv(P, sizes["VARIANTS"]) * triton.cdiv(N, sizes["CELLS"])
    tiles *= triton.cdiv(F, sizes["COLUMNS"])
    rows = (rows_RD.contiguous(), weight_DF.contiguous(), pre_RF.contiguous())
    given = (*rows, index_R.contiguous(), out, P, N, D, F)
    launch_kernel(mlp_in_delta_kernel, tiles, launch, *given, PRECISION=precision)
    return out


def mlp_delta(
    resid_mid_RD: Tensor,
    pre_RF: Tensor,
    delta_RD: Tensor,
    gain_D: Tensor,
    epsilon: float,
    w_in: DenseLinear,
    w_out: DenseLinear,
    activation: str,
    index_R: Tensor | None = None,
) -> Tensor:
    """Change of an MLP's output; with `index` [R] row r of delta belongs to base row index[r]."""
    given = (resid_mid_RD, pre_RF, delta_RD, gain_D, epsilon, w_in, w_out, activation, index_R)
    if activation not in _TANH_FORMS:
        return torch_ops.mlp_delta(*given, layernorm_delta, gelu_delta)
    base = resid_mid_RD if index_R is None else resid_mid_RD[index_R]
    normed = layernorm_delta(base, delta_RD, gain_D, epsilon).flatten(0, -2)
    hidden = mlp_in_delta(pre_RF, normed, w_in.weight, index_R, w_in.precision)
    product = w_out.delta_of_tf32 if w_out.precision == "tf32" else w_out.delta
    return product(hidden).view(delta_RD.shape)


def add_mlp_delta(
    resid_mid_RD: Tensor, pre_RF: Tensor, delta_RD: Tensor, *weights: object
) -> Tensor:
    """Adds to delta, in place, what `mlp_delta` gives."""
    return delta_RD.add_(mlp_delta(resid_mid_RD, pre_RF, delta_RD, *weights))


def head_write(
    delta_PCD: Tensor, rows: Tensor, delta_z_CHK: Tensor, heads: Tensor, w_o_HKD: Tensor
) -> Tensor:
    """Adds to variant rows[i] what the change of z of head heads[i] writes, in place."""
    (_, C, D), (H, K, _) = delta_PCD.shape, w_o_HKD.shape
    launch = triton_tiles.write_launch(K)
    if launch is None or not delta_PCD.is_contiguous():
        return torch_ops.head_write(delta_PCD, rows, delta_z_CHK, heads, w_o_HKD)
    launch = tuned_tiles.tuned("head_write", "ieee", (C, K, D), delta_PCD.device, launch)
    order = rows.argsort(stable=True)
    sizes = launch.constants
    blocks = triton.cdiv(C, sizes["CELLS"]) * triton.cdiv(D, sizes["COLUMNS"])
    given = (delta_PCD, rows[order], heads[order], delta_z_CHK.contiguous(), w_o_HKD.contiguous())
    programs = len(rows) * blocks
    launch_kernel(
        head_write_kernel, programs, launch, *given, len(rows), C, H, K, D, PRECISION="ieee"
    )
    return delta_PCD


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
    precision: str = "ieee",
) -> Tensor:
    """Change of z when q, k and v change; shapes as in the reference, one axis of variants or none.

    With a source a row at a table's code c ≥ 0 is sources[c]; int16 where there are more than 127.
    """
    (N, T, H, K), S, C = q_NTHK.shape, k_NSHK.shape[1], delta_k.shape[-3]
    device, shape = delta_q.device, delta_q.shape
    rows = [_together(t) for t in (q_NTHK, k_NSHK, v_NSHK)]
    rows += [_together(t).reshape(-1, *t.shape[-4:]) for t in (delta_q, delta_k, delta_v)]
    P = len(rows[3])
    asked = ("attention_delta", precision, (T == 1, P, S, K), device)
    launch = tuned_tiles.tuned(*asked, triton_tiles.attention_launch(T, S, K))
    out = torch.empty(P, N, T, H, K, dtype=delta_q.dtype, device=device)
    if at_NT is None:
        at_NT = torch.arange(T, device=device).expand(N, T)
    if changed_NC is None:
        changed_NC = torch.arange(S, device=device).expand(N, S)
    if table is None:
        table = torch.full((1, 1, 1, 1), LIVE, dtype=torch.int8, device=device)
    codes = table.reshape(-1, *table.shape[-3:]).expand(P, N, T, H)
    if sources is None:  # nothing may be taken from one; as in the reference that is zero
        sources = out.new_zeros(K).expand(1, N, T, H, K)
    tensors = (*rows, at_NT.contiguous(), changed_NC.contiguous(), codes)
    tensors += (_together(sources), out)
    # Every axis but that of columns, which the table has none of.
    strides = [step for t in rows for step in t.stride()[:-1]]
    strides += [*codes.stride(), *sources.stride()[:-1]]
    programs, kernel = N * H * triton.cdiv(T, triton_tiles.BLOCK), attention_delta_long
    if launch in triton_tiles.LONG:
        programs *= P * triton.cdiv(K, launch.constants["WIDTH"])
    else:
        programs *= triton.cdiv(P, launch.constants["VARIANTS"])
        kernel = attention_delta_last if T == 1 else attention_delta_queries
    sizes = (N, P, H, T, S, C, K, scale)
    launch_kernel(kernel, programs, launch, *tensors, *sizes, *strides, PRECISION=precision)
    return out.view(shape)


def _together(rows: Tensor) -> Tensor:
    return rows if rows.stride(-1) == 1 else rows.contiguous()
