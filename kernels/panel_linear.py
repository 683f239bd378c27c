"""Large matrix products on a CPU with AVX-512: our own, with weights in panels of 32 columns.

Faster than oneDNN's there (benchmarks), and what the fused MLP is made of; needs the C++ kernels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

PANEL = 32


def panels_supported() -> bool:
    """Whether the loaded C++ kernels find the wide registers that panels are made for."""
    return torch.ops.ioi_fast.panels_supported()


def bf16_panels_supported() -> bool:
    """Whether they find products of bf16 pairs too (AVX-512 BF16)."""
    return torch.ops.ioi_fast.bf16_panels_supported()


class PanelLinear:
    """x @ weight (+ bias) for rows x [R, in] in fp32 and a weight [in, out] that never changes.

    With a weight in bf16 the rows are rounded to bf16 as well; sums and the output are fp32.
    `panels` is the weight as [out / 32, in, 32], in bf16 as [out / 32, in / 2, 32, 2] with
    neighbours of `in` side by side; `bias` is [out]. All are filled up with zeros. `rounded` says
    that rows are rounded to bf16 before a weight in fp32, for CPUs without bf16 arithmetic.
    """

    __slots__ = ("bias", "panels", "rounded", "width")

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        (K, self.width), self.rounded = weight.shape, False
        pair = 2 if weight.dtype == torch.bfloat16 else 1
        missing = (0, -self.width % PANEL, 0, -K % pair)
        whole = F.pad(weight, missing) if any(missing) else weight
        panels = whole.unflatten(1, (-1, PANEL)).transpose(0, 1)
        if pair == 2:
            panels = panels.unflatten(1, (-1, pair)).transpose(2, 3)
        self.panels = panels.contiguous()
        self.bias = None if bias is None else F.pad(bias, missing[:2])

    def __call__(self, rows: Tensor) -> Tensor:
        """x @ weight + bias, [R, in] -> [R, out]."""
        return self._product(rows, self.bias)

    def delta(self, rows: Tensor) -> Tensor:
        """δ @ weight: in a difference the bias cancels."""
        return self._product(rows, None)

    def _product(self, rows: Tensor, bias: Tensor | None) -> Tensor:
        return torch.ops.ioi_fast.panel_linear(rows, self.panels, bias, self.width, self.rounded)
