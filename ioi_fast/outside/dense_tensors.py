"""Which tensors hold plain values that can be read one by one."""

from __future__ import annotations

import torch
from torch import Tensor


def why_not_dense(tensor: Tensor) -> str | None:
    """What keeps a tensor from being read as plain values, None for a dense tensor that holds some.

    >>> why_not_dense(torch.zeros(2, 3, device="meta"))
    'a tensor on meta, which holds no values'
    """
    if tensor.is_nested:
        return "a nested tensor"
    if tensor.layout != torch.strided:
        return f"a tensor of layout {str(tensor.layout).removeprefix('torch.')}"
    if tensor.is_meta:
        return "a tensor on meta, which holds no values"
    if tensor.is_quantized:
        return f"a quantised tensor ({str(tensor.dtype).removeprefix('torch.')})"
    return None
