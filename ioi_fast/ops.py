"""One table of operations per backend; the wave calls these names and knows no backend."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from torch import Tensor

from ioi_fast.kernels import cpu_ops, torch_ops
from ioi_fast.kernels.build import BuildError, load_kernels
from ioi_fast.kernels.reference import Linear

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
    mlp: Op
    mlp_delta: Op
    add_mlp_delta: Op
    linear: Callable[[Tensor, Tensor | None], Linear]

    @classmethod
    def of(cls, backend: str, module: ModuleType) -> Ops:
        """The table of a module that has every operation by its name."""
        names = [name for name in cls.__slots__ if name != "backend"]
        return cls(backend, *(getattr(module, name) for name in names))


def plain_torch() -> Ops:
    """The operations on a CPU without compiled kernels."""
    return Ops.of("cpu/torch", torch_ops)


def cpu() -> Ops:
    """The operations on a CPU: C++ kernels, or torch with a warning that says why."""
    try:
        load_kernels()
    except BuildError as reason:
        warnings.warn(f"ioi_fast runs without its C++ kernels, slower: {reason}", stacklevel=4)
        return plain_torch()
    return Ops.of("cpu/c++", cpu_ops)
