"""Products of differences with both operands in bf16 and sums in fp32.

In bf16 arithmetic where the CPU has it, else with operands rounded to bf16 and multiplied in fp32:
the same answer but for the rounding of the result.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ioi_fast.kernels.choose_linear import ONEDNN, PANELS
from ioi_fast.kernels.packed_linear import PackedLinear
from ioi_fast.kernels.panel_linear import PanelLinear
from ioi_fast.kernels.reference import Linear
from ioi_fast.kernels.row_blocks import PRODUCT_ROWS, slices


def bf16_linear(weight: Tensor, means: str, pack: Callable[..., Linear]) -> Linear:
    """δ @ weight for a weight [in, out] that never changes, by one of the means of
    `choose_linear`.

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
