"""One operation's kernels alone, on inputs of their own, as the engine launches them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor

from ioi_fast.benchmarks.gpu.clock import Run
from ioi_fast.benchmarks.gpu.kernels import peers as kernel_peers
from ioi_fast.benchmarks.gpu.kernels.peers import Given
from ioi_fast.benchmarks.gpu.setting import PRECISIONS, Setting
from ioi_fast.kernels import tuned_tiles
from ioi_fast.kernels.triton_tiles import Launch

IN_EVERY_PRECISION = ("mlp_in_delta", "attention_delta")
# Largest error over the largest value that is promised of one kernel.
PROMISED_OF_A_KERNEL = {"fp32": 1e-5, "tf32": 5e-3, "bf16": 1e-2}


def precisions_of(setting: Setting, operation: str) -> tuple[str, ...]:
    """Those that change an operation."""
    return setting.precisions if operation in IN_EVERY_PRECISION else PRECISIONS[:1]


def launched_on(device: torch.device) -> AbstractContextManager:
    """While it is open kernels are launched on a device."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def meant(precision: str, dry: bool) -> str:
    """The kernels' own name of a precision; bf16 has no arithmetic in the interpreter."""
    return {"fp32": "ieee", "tf32": "tf32", "bf16": "rounded" if dry else "bf16"}[precision]


def kernels_of(
    operation: str, given: Given, precision: str, tile: Launch | None = None
) -> tuple[Tensor, Run]:
    """What an operation gives, and its kernels alone, which can be run again and again.

    They read and write the same memory each time. A tile takes the place of the engine's choice.
    """
    from ioi_fast.kernels import triton_ops

    launch, launched = triton_ops.launch_kernel, []

    def seen(*one: object, **named: object) -> None:
        launched.append((one, named))
        launch(*one, **named)

    taken = nullcontext()
    if tile is not None:
        taken = replaced(tuned_tiles, "tuned", lambda *asked: tile)
    run = operation_of(operation, given, precision)
    with replaced(triton_ops, "launch_kernel", seen), taken:
        out = run().clone()

    def again() -> None:
        for one, named in launched:
            launch(*one, **named)

    return out, again


def operation_of(operation: str, given: Given, precision: str) -> Callable[[], Tensor]:
    """An operation on inputs of its own, with weights as the engine holds them."""
    from ioi_fast.kernels import triton_ops

    own = kernel_peers.private(given)
    if operation in IN_EVERY_PRECISION:
        own["precision"] = precision
    if operation == "mlp_in_delta":
        own["weight_DF"] = triton_ops.linear(own["weight_DF"], None, precision).weight
    return partial(getattr(triton_ops, operation), **own)


@contextmanager
def replaced(module: object, name: str, by: object) -> Iterator[None]:
    """While it is open a module has something else under a name."""
    before = getattr(module, name)
    setattr(module, name, by)
    try:
        yield
    finally:
        setattr(module, name, before)
