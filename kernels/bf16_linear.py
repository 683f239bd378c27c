"""Products of differences with both operands in bf16 and sums in fp32.

In bf16 arithmetic where the CPU has it (oneDNN), else with operands rounded to bf16 and multiplied
in fp32: the same answer but for the rounding of the result.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ioi_fast.kernels.packed_linear import PackedLinear, onednn_available
from ioi_fast.kernels.reference import Linear


def bf16_arithmetic() -> bool:
    """Whether this CPU multiplies in bf16 (AVX-512 BF16 or AMX), and torch can make it."""
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return onednn_available() and supported is not None and bool(supported())


class Bf16Linear:
    """δ @ weight for rows δ [R, in] in fp32 and a weight [in, out] that never changes.

    `pack` makes the product in fp32 where there is no bf16 arithmetic. The base run is always
    fp32, so that a bias has no place here.
    """

    __slots__ = ("_native", "_product")

    def __init__(self, weight: Tensor, pack: Callable[..., Linear], *, native: bool) -> None:
        self._native, rounded = native, weight.bfloat16()
        if native:
            self._product: Linear = PackedLinear(rounded, None, onednn=True)
        else:
            self._product = pack(rounded.float(), None)

    def delta(self, rows: Tensor) -> Tensor:
        """δ @ weight, [R, in] -> [R, out] in fp32."""
        rounded = rows.bfloat16()
        return self._product.delta(rounded if self._native else rounded.float()).float()
