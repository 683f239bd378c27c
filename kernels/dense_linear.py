"""Large matrix products where the vendor's library packs by itself: a weight as it stands."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ioi_fast.kernels.fp32_products import tf32_products


class DenseLinear:
    """x @ weight (+ bias) for rows x [R, in] in fp32 and a weight [in, out] that never changes.

    `precision` is what kernels that multiply by the weight themselves take: "ieee" is fp32, "tf32"
    rounds both operands to 10 bits after the point, by `to_tf32`, and lets a GPU multiply in TF32,
    "bf16" multiplies in bf16 and sums in fp32, which is for GPUs too, "rounded" is the same in fp32
    products.

    >>> DenseLinear(torch.eye(3), torch.ones(3))(torch.zeros(2, 3)).tolist()[0]
    [1.0, 1.0, 1.0]
    """

    __slots__ = ("_bias", "_half", "_to_tf32", "precision", "weight")

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        precision: str = "ieee",
        to_tf32: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if precision == "rounded":
            weight = weight.bfloat16().float()
        if precision == "tf32":
            weight = to_tf32(weight)
        self.weight, self._bias, self.precision = weight.contiguous(), bias, precision
        self._half = self.weight.bfloat16() if precision == "bf16" else None
        self._to_tf32 = to_tf32

    def __call__(self, rows: Tensor) -> Tensor:
        """x @ weight + bias, [R, in] -> [R, out]."""
        out = self.delta(rows)
        return out if self._bias is None else out.add_(self._bias)

    def delta(self, rows: Tensor) -> Tensor:
        """δ @ weight: in a difference the bias cancels."""
        if self.precision == "tf32":
            return self.delta_of_tf32(self._to_tf32(rows))
        if self._half is not None:
            return torch.mm(rows.bfloat16(), self._half, out_dtype=torch.float32)
        return torch.mm(
            rows.bfloat16().float() if self.precision == "rounded" else rows, self.weight
        )

    def delta_of_tf32(self, rows: Tensor) -> Tensor:
        """δ @ weight in TF32 for rows that are rounded to it already."""
        with tf32_products():
            return torch.mm(rows, self.weight)
