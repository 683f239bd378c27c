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


class PanelLinear:
    """x @ weight (+ bias) for rows x [R, in] and a weight [in, out] that never changes.

    `panels` is the weight as [out / 32, in, 32] and `bias` is [out], both filled up with zero
    columns; `width` is out.
    """

    __slots__ = ("bias", "panels", "width")

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        K, self.width = weight.shape
        whole, rest = divmod(self.width, PANEL)
        self.panels = weight.new_zeros(whole + (rest > 0), K, PANEL)
        end = whole * PANEL
        self.panels[:whole] = weight[:, :end].unflatten(1, (whole, PANEL)).transpose(0, 1)
        if rest:
            self.panels[-1, :, :rest] = weight[:, end:]
        self.bias = None if bias is None else F.pad(bias, (0, -self.width % PANEL))

    def __call__(self, rows: Tensor) -> Tensor:
        """x @ weight + bias, [R, in] -> [R, out]."""
        return self._product(rows, self.bias)

    def delta(self, rows: Tensor) -> Tensor:
        """δ @ weight: in a difference the bias cancels."""
        return self._product(rows, None)

    def _product(self, rows: Tensor, bias: Tensor | None) -> Tensor:
        return torch.ops.ioi_fast.panel_linear(rows, self.panels, bias, self.width)
