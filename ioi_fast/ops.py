"""One table of operations per backend; the wave calls these names and knows no backend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ioi_fast.kernels import cpu

Op = Callable[..., Tensor]


@dataclass(frozen=True, slots=True)
class Ops:
    """The operations in difference form, and the name that a result gives their backend."""

    backend: str
    layernorm_delta: Op
    gelu_delta: Op
    attention_delta: Op
    head_write: Op
    readout_delta: Op


def cpu_ops() -> Ops:
    """The operations on a CPU."""
    return Ops(
        backend="cpu/torch",
        layernorm_delta=cpu.layernorm_delta,
        gelu_delta=cpu.gelu_delta,
        attention_delta=cpu.attention_delta,
        head_write=cpu.head_write,
        readout_delta=cpu.readout_delta,
    )
