"""Products of differences with both operands in bf16 and sums in fp32.

In bf16 arithmetic where the CPU has it, else with operands rounded to bf16 and multiplied in fp32:
the same answer but for the rounding of the result.
"""

from __future__ import annotations

import platform
from collections.abc import Callable

import torch
from torch import Tensor

from ioi_fast.kernels.packed_linear import PackedLinear, onednn_available
from ioi_fast.kernels.panel_linear import PanelLinear, bf16_panels_supported
from ioi_fast.kernels.reference import Linear
from ioi_fast.kernels.row_blocks import PRODUCT_ROWS, slices

PANELS, ONEDNN, ROUNDED = "panels", "onednn", "rounded"


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


def bf16_linear(weight: Tensor, means: str, pack: Callable[..., Linear]) -> Linear:
    """δ @ weight for a weight [in, out] that never changes, by one of the means above.

    `pack` makes the product in fp32 where there is no bf16 arithmetic. The base run is always
    fp32, so that a bias has no place here.
    """
    rounded = weight.bfloat16()
    if means == PANELS:
        return PanelLinear(rounded, None)
    if means == ONEDNN:
        return Bf16Linear(PackedLinear(rounded, None, onednn=True), native=True)
    product = pack(rounded.float(), None)
    if isinstance(product, PanelLinear):
        product.rounded = True
        return product
    return Bf16Linear(product, native=False)


class Bf16Linear:
    """δ @ weight for rows δ [R, in] in fp32, by a product with a weight that was rounded to bf16:
    of bf16 rows (`native`), or of rounded rows in fp32.

    A block of rows at a time, so that what is rounded takes little memory.
    """

    __slots__ = ("_native", "_product")

    def __init__(self, product: Linear, *, native: bool) -> None:
        self._product, self._native = product, native

    def delta(self, rows: Tensor) -> Tensor:
        """δ @ weight, [R, in] -> [R, out] in fp32."""
        if len(rows) <= PRODUCT_ROWS:
            return self._of_block(rows)
        first, *others = slices(len(rows), PRODUCT_ROWS)
        product = self._of_block(rows[first])
        out = product.new_empty(len(rows), product.shape[1])
        out[first] = product
        for some in others:
            out[some] = self._of_block(rows[some])
        return out

    def _of_block(self, rows: Tensor) -> Tensor:
        rounded = rows.bfloat16()
        return self._product.delta(rounded if self._native else rounded.float()).float()
