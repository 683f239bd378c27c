"""Large matrix products on a CPU: oneDNN with weights packed once, or torch's own where it lacks.

Packing pays because the same few weights multiply every row of a wave.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def onednn_available() -> bool:
    """Whether this build of torch has oneDNN's packed linear."""
    if not torch.backends.mkldnn.is_available():
        return False
    return all(
        hasattr(torch.ops.mkldnn, name) for name in ("_linear_pointwise", "_reorder_linear_weight")
    )


class PackedLinear:
    """x @ weight (+ bias) for rows x [R, in] and a weight [in, out] that never changes.

    >>> PackedLinear(torch.eye(3), torch.ones(3))(torch.zeros(2, 3)).tolist()[0]
    [1.0, 1.0, 1.0]
    """

    __slots__ = ("_bias", "_packed", "_weight")

    def __init__(self, weight: Tensor, bias: Tensor | None, *, onednn: bool | None = None) -> None:
        self._packed = onednn_available() if onednn is None else onednn
        self._weight = weight.T  # oneDNN and F.linear want [out, in]
        if self._packed:
            self._weight = torch.ops.mkldnn._reorder_linear_weight(self._weight.contiguous(), None)
        self._bias = None if bias is None else bias.contiguous()  # oneDNN reads it as if it were

    def __call__(self, rows: Tensor) -> Tensor:
        """x @ weight + bias, [R, in] -> [R, out]."""
        return self._product(rows, self._bias)

    def delta(self, rows: Tensor) -> Tensor:
        """δ @ weight: in a difference the bias cancels."""
        return self._product(rows, None)

    def _product(self, rows: Tensor, bias: Tensor | None) -> Tensor:
        if self._packed:
            return torch.ops.mkldnn._linear_pointwise(rows, self._weight, bias, "none", [], "")
        return F.linear(rows, self._weight, bias)
