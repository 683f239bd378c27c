"""Large matrix products where the vendor's library packs by itself: a weight as it stands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class DenseLinear:
    """x @ weight (+ bias) for rows x [R, in] in fp32 and a weight [in, out] that never changes.

    `precision` is what kernels that multiply by the weight themselves take: "ieee" is fp32, "tf32"
    lets a GPU round operands to 10 bits after the point, "bf16" multiplies in bf16 and sums in
    fp32, which is for GPUs too, "rounded" is the same in fp32 products.

    >>> DenseLinear(torch.eye(3), torch.ones(3))(torch.zeros(2, 3)).tolist()[0]
    [1.0, 1.0, 1.0]
    """

    __slots__ = ("_bias", "_half", "precision", "weight")

    def __init__(self, weight: Tensor, bias: Tensor | None, precision: str = "ieee") -> None:
        if precision == "rounded":
            weight = weight.bfloat16().float()
        self.weight, self._bias, self.precision = weight.contiguous(), bias, precision
        self._half = self.weight.bfloat16() if precision == "bf16" else None

    def __call__(self, rows: Tensor) -> Tensor:
        """x @ weight + bias, [R, in] -> [R, out]."""
        out = self.delta(rows)
        return out if self._bias is None else out.add_(self._bias)

    def delta(self, rows: Tensor) -> Tensor:
        """δ @ weight: in a difference the bias cancels."""
        if self._half is not None:
            return torch.mm(rows.bfloat16(), self._half, out_dtype=torch.float32)
        if self.precision == "rounded":
            rows = rows.bfloat16().float()
        with fp32_products("high" if self.precision == "tf32" else "highest"):
            return torch.mm(rows, self.weight)


@contextmanager
def fp32_products(precision: str) -> Iterator[None]:
    """Torch's own products of fp32 take this precision, "highest" or "high", whatever the process
    has set for its own."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
