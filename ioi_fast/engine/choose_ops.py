"""Which operations run a call: C++ kernels, plain torch where they can't be had, or Triton's.

An explicit choice works or raises; what is slower than it could be says why, in a warning.
"""

from __future__ import annotations

import os
import shutil
import warnings
from dataclasses import replace
from functools import partial
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.torch_version import TorchVersion

from ioi_fast.engine.ops import Ops
from ioi_fast.kernels import choose_linear, cpu_ops, torch_ops
from ioi_fast.kernels.bf16_linear import bf16_linear
from ioi_fast.kernels.build import BuildError, load_kernels
from ioi_fast.kernels.reference import Linear
from ioi_fast.model.config import GPT2Config
from ioi_fast.plan.memory.room import Room

_OLDEST = (8, 0)  # compute capability of NVIDIA GPUs that the kernels are compiled for


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
    means = choose_linear.bf16_arithmetic(compiled=table.backend == "cpu/c++")
    if means == choose_linear.ROUNDED:
        warnings.warn(
            "this CPU has no bf16 arithmetic: ioi_fast rounds to bf16 and multiplies in fp32",
            stacklevel=5,
        )
    return in_bf16(table, means)


def triton(precision: str, device: torch.device) -> Ops:
    """The operations as Triton kernels; with "bf16" or "tf32" differences are multiplied in that.

    New tensors of a call are made on the device. Raises RuntimeError where the kernels can't run.
    """
    reason = why_not_triton(device, precision)
    if reason is not None:
        raise RuntimeError(f"backend 'triton' can't run: {reason}")
    from ioi_fast.kernels import triton_graph, triton_ops

    where = "interpreter" if _interpreted() else device.type
    table = Ops.of(f"triton/{where}", triton_ops)
    table = replace(table, workspace=partial(table.workspace, device))
    if os.environ.get("IOI_FAST_CUDA_GRAPHS") == "1":
        capture = triton_graph.rehearsed if _interpreted() else triton_graph.recorded
        table = replace(table, capture=capture)
    if precision == "fp32":
        return table
    # The interpreter's own bf16 is not a GPU's: there operands are rounded and multiplied in fp32.
    # So are those of TF32, which we round on a GPU as well.
    means = "rounded" if precision == "bf16" and _interpreted() else precision
    products = {
        "linear": partial(triton_ops.linear, precision=means),
        "attention_delta": partial(triton_ops.attention_delta, precision=means),
    }
    return replace(table, precision=precision, fp32=table, **products)


def why_not_triton(device: torch.device, precision: str = "fp32") -> str | None:
    """The reason why Triton kernels can't run on a device in a precision, or None."""
    if find_spec("triton") is None:
        return "triton is not installed: pip install 'ioi_fast[gpu]'"
    if _interpreted():
        return _why_not_interpreted()
    if device.type != "cuda":  # which AMD's GPUs are called too
        found = torch.cuda.is_available()
        problem = "the model is on the CPU" if found else "torch sees no GPU"
        advice = "TRITON_INTERPRET=1 runs the kernels in Triton's interpreter, slowly"
        if found:
            advice = "load it with device='cuda'"
        return f"{problem}: {advice}"
    if torch.version.hip is None and torch.cuda.get_device_capability(device) < _OLDEST:
        major, minor = torch.cuda.get_device_capability(device)
        return f"the GPU is of compute capability {major}.{minor}, the kernels need 8.0"
    if precision == "bf16" and not hasattr(torch.ops.aten.mm, "dtype"):
        return (
            f"precision 'bf16' on a GPU needs torch 2.8, this is {torch.__version__}: "
            "pip install 'ioi_fast[gpu]'"
        )
    if compiler_for_triton() is None:
        return (
            "triton finds no C compiler for what launches its kernels: install gcc or clang, "
            "or name one in the environment variable CC"
        )
    return None


def _why_not_interpreted() -> str | None:
    """Before 3.7 the interpreter makes numbers of arrays in a way that numpy 2.4 took away."""
    import numpy
    import triton

    if TorchVersion(triton.__version__) >= (3, 7) or TorchVersion(numpy.__version__) < (2, 4):
        return None
    return (
        f"the interpreter of triton {triton.__version__} can't run with numpy {numpy.__version__}: "
        "it needs triton 3.7 or newer, or numpy older than 2.4"
    )


def compiler_for_triton() -> str | None:
    """Path of the C compiler that Triton takes on a real GPU, or None: CC if it is set, else gcc,
    else clang."""
    named = os.environ.get("CC")
    if named is not None:
        return shutil.which(named)
    return shutil.which("gcc") or shutil.which("clang")


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


def table_of(backend: str, precision: str, device: torch.device) -> Ops:
    """The table of a fast backend, "cpu" or "triton", for a model on a device."""
    return triton(precision, device) if backend == "triton" else cpu(precision)


def room_of(config: GPT2Config, backend: str, precision: str, threads: int | None = None) -> Room:
    """What a call of a backend takes beside the tensors that its plan counts, on so many threads
    (default: those that torch has). A GPU's memory is torch's."""
    if backend != "cpu":
        return Room()
    try:
        load_kernels()
    except BuildError:
        compiled = False
    else:
        compiled = True
    fused = choose_linear.in_panels(precision, compiled)
    threads = threads or torch.get_num_threads()
    return Room.of(config, compiled=compiled, fused=fused, threads=int(threads))


def in_bf16(table: Ops, means: str) -> Ops:
    """The table with bf16 operands in the large products of differences."""

    def linear(weight: Tensor, _bias: Tensor | None) -> Linear:
        return bf16_linear(weight, means, table.linear)

    return replace(table, precision="bf16", fp32=table, linear=linear)
