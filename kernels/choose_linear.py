"""Which large products a CPU takes: in fp32 our panels, else oneDNN's or torch's own; in bf16 our
panels, oneDNN's, or operands that are rounded to bf16 and multiplied in fp32."""

from __future__ import annotations

import platform

import torch
from torch import Tensor

from ioi_fast.kernels.packed_linear import PackedLinear, onednn_available
from ioi_fast.kernels.panel_linear import PanelLinear, bf16_panels_supported, panels_supported
from ioi_fast.kernels.reference import Linear

PANELS, ONEDNN, ROUNDED = "panels", "onednn", "rounded"


def linear(weight: Tensor, bias: Tensor | None) -> Linear:
    """A weight packed for products in fp32, as suits the CPU; needs the C++ kernels."""
    return (PanelLinear if in_panels("fp32", compiled=True) else PackedLinear)(weight, bias)


def in_panels(precision: str, compiled: bool) -> bool:
    """Whether weights are packed in panels, on which an MLP is one of the C++ kernels, if these are
    `compiled`."""
    if not compiled or not panels_supported():
        return False
    return precision != "bf16" or bf16_arithmetic(compiled) != ONEDNN


def bf16_arithmetic(compiled: bool) -> str:
    """How this CPU multiplies in bf16 best: PANELS, ONEDNN, or ROUNDED where it can't.

    oneDNN where there are matrix units (AMX, or those of ARM), our own panels on AVX-512 BF16 if
    the C++ kernels are `compiled`. oneDNN also takes bf16 on any AVX-512, by widening it, which is
    slower than fp32 and no bf16 arithmetic.
    """
    onednn = onednn_available() and _of_torch("mkldnn", "_is_mkldnn_bf16_supported")
    if platform.machine() not in ("x86_64", "AMD64"):
        return ONEDNN if onednn else ROUNDED
    if onednn and _of_torch("cpu", "_is_amx_tile_supported"):
        return ONEDNN
    if compiled and bf16_panels_supported():
        return PANELS
    return ONEDNN if onednn and _of_torch("cpu", "_is_avx512_bf16_supported") else ROUNDED


def _of_torch(where: str, name: str) -> bool:
    """What torch says of the CPU, in functions that not every version has."""
    module = torch.ops.mkldnn if where == "mkldnn" else torch.cpu
    return bool(getattr(module, name, lambda: False)())
