"""One table of operations per backend; the wave calls these names and knows no backend."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from types import ModuleType

from torch import Tensor

from ioi_fast.kernels import cpu_ops, torch_ops
from ioi_fast.kernels.bf16_linear import ROUNDED, bf16_arithmetic, bf16_linear
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
    workspace: Callable[[], AbstractContextManager]  # open while a call runs
    precision: str = "fp32"
    fp32: Ops | None = None  # for the two runs, where the differences are in bf16

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
        names = [name for name in cls.__slots__ if name not in ("backend", "precision", "fp32")]
        return cls(backend, *(getattr(module, name) for name in names))


def plain_torch() -> Ops:
    """The operations on a CPU without compiled kernels."""
    return Ops.of("cpu/torch", torch_ops)


def cpu(precision: str = "fp32") -> Ops:
    """The operations on a CPU: C++ kernels, or torch with a warning that says why.

    With "bf16" differences are multiplied in bf16, or, with a warning, as if they were.
    """
    try:
        load_kernels()
    except BuildError as reason:
        warnings.warn(f"ioi_fast runs without its C++ kernels, slower: {reason}", stacklevel=5)
        table = plain_torch()
    else:
        table = Ops.of("cpu/c++", cpu_ops)
    if precision == "fp32":
        return table
    means = bf16_arithmetic(compiled=table.backend == "cpu/c++")
    if means == ROUNDED:
        warnings.warn(
            "this CPU has no bf16 arithmetic: ioi_fast rounds to bf16 and multiplies in fp32",
            stacklevel=5,
        )
    return in_bf16(table, means)


def triton(precision: str = "fp32") -> Ops:
    """The operations as Triton kernels; with "bf16" differences are multiplied in bf16.

    Raises RuntimeError with the reason where they can't run.
    """
    reason = why_not_triton()
    if reason is not None:
        raise RuntimeError(f"backend 'triton' can't run: {reason}")
    from ioi_fast.kernels import triton_ops

    table = Ops.of("triton/interpreter", triton_ops)
    if precision == "fp32":
        return table
    products = {
        "linear": partial(triton_ops.linear, precision="rounded"),
        "attention_delta": partial(triton_ops.attention_delta, precision="rounded"),
    }
    return replace(table, precision="bf16", fp32=table, **products)


def why_not_triton() -> str | None:
    """The reason why Triton kernels can't run here, or None."""
    if find_spec("triton") is None:
        return "triton is not installed: pip install 'ioi_fast[gpu]'"
    if os.environ.get("TRITON_INTERPRET") == "1":
        return None
    return (
        "the kernels are there, but the engine does not place its tensors on a GPU yet; "
        "TRITON_INTERPRET=1 runs them in Triton's interpreter, very slowly"
    )


def table_of(backend: str, precision: str) -> Ops:
    """The table of a fast backend, "cpu" or "triton"."""
    return triton(precision) if backend == "triton" else cpu(precision)


def in_bf16(table: Ops, means: str) -> Ops:
    """The table with bf16 operands in the large products of differences."""

    def linear(weight: Tensor, _bias: Tensor | None) -> Linear:
        return bf16_linear(weight, means, table.linear)

    return replace(table, precision="bf16", fp32=table, linear=linear)
