"""The operations in difference form for CPUs: C++ kernels where they pay, torch where they do not.

Raises BuildError from `load_kernels` where the kernels can't be built; `torch_ops` needs nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ioi_fast.kernels import torch_ops
from ioi_fast.kernels.torch_ops import attention_delta, head_write

__all__ = ["attention_delta", "gelu_delta", "head_write", "layernorm_delta", "readout_delta"]

_TANH_FORMS = ("gelu_new", "gelu_pytorch_tanh")


def layernorm_delta(x_RD: Tensor, delta_RD: Tensor, gain_D: Tensor, epsilon: float) -> Tensor:
    """Change of a LayerNorm's output: x [N, D], delta [..., N, D] -> [..., N, D]."""
    return torch.ops.ioi_fast.layernorm_delta(x_RD, delta_RD, gain_D, epsilon)


def gelu_delta(pre_RF: Tensor, delta_RF: Tensor, activation: str) -> Tensor:
    """Change of an activation's output when its input changes by delta; GPT-2's own is in C++."""
    if activation in _TANH_FORMS:
        return torch.ops.ioi_fast.gelu_delta(pre_RF, delta_RF)
    return torch_ops.gelu_delta(pre_RF, delta_RF, activation)


def readout_delta(
    x_RD: Tensor, delta_RD: Tensor, gain_D: Tensor, epsilon: float, direction_RD: Tensor
) -> Tensor:
    """Change of ⟨final LayerNorm, direction⟩ when the final residual changes by delta, [..., N]."""
    return (layernorm_delta(x_RD, delta_RD, gain_D, epsilon) * direction_RD).sum(-1)
