"""One table of operations per backend; the wave calls these names and knows no backend."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import ModuleType

from torch import Tensor

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
    attention: Op
    mlp_delta: Op
    add_mlp_delta: Op
    linear: Callable[[Tensor, Tensor | None], Linear]
    workspace: Callable[[], AbstractContextManager]  # open while a call runs
    capture: Callable | None = None  # records a wave to be run again, where that pays
    precision: str = "fp32"
    fp32: Ops | None = None  # for the two runs, where the differences are in less

    @property
    def exact(self) -> Ops:
        """The table for the two runs, which are fp32 in every precision."""
        return self.fp32 or self

    @property
    def packing(self) -> str:
        """What the weights packed by this table are kept under."""
        return f"{self.backend}/{self.precision}"

    @classmethod
    def of(cls, backend: str, module: ModuleType) -> Ops:
        """The table of a module that has every operation by its name."""
        others = ("backend", "capture", "precision", "fp32")
        names = [name for name in cls.__slots__ if name not in others]
        return cls(backend, *(getattr(module, name) for name in names))
