"""Work on a GPU that is recorded once and launched again as a whole, and a rehearsal without one.

Unproven: no GPU has run a recording yet. What is shown without one: in Triton's interpreter the
same work runs under the rules of a recording, which may neither wait for the device nor copy from
the host, as far as torch's dispatcher sees that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode

Made = TypeVar("Made")

# Operations whose result has a size, or a value on the host, that only the device knows.
_WAITING = {
    "_local_scalar_dense",
    "equal",
    "is_nonzero",
    "masked_select",
    "nonzero",
    "_unique2",
    "unique_consecutive",
    "unique_dim",
    "repeat_interleave",
}
_FROM_THE_HOST = {"lift_fresh", "lift_fresh_copy"}


class NotRecordable(RuntimeError):
    """Work waits for the device, or reads the host's memory, while it is recorded."""


def recorded(work: Callable[[], Made]) -> Callable[[], Made]:
    """Records work in a CUDA graph: what it reads and makes stays where it is, and every call of
    what comes back does all of it again. The kernels have run before, so that they are compiled."""
    # A stream of the device that work runs on: torch's own for captures stays on the first one.
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        made = work()

    def again(read: object = work) -> Made:  # what the graph reads lives as long as it
        graph.replay()
        return made

    return again


def rehearsed(work: Callable[[], Made]) -> Callable[[], Made]:
    """The same without a GPU: the work runs again each time, and raises NotRecordable for what a
    recording forbids."""

    def again() -> Made:
        with _Rules():
            return work()

    return again


class _Rules(TorchDispatchMode):
    """Refuses what a recording would."""

    def __torch_dispatch__(self, function, types, arguments=(), more=None):
        name = function._schema.name.removeprefix("aten::")
        if name in _WAITING:
            raise NotRecordable(f"{name} waits for the device")
        if name in _FROM_THE_HOST:
            raise NotRecordable(f"{name} copies from the host")
        if name in ("index", "index_put", "index_put_") and _by_mask(arguments[1]):
            raise NotRecordable(f"{name} by a mask waits for the device")
        return function(*arguments, **(more or {}))


def _by_mask(indices: list) -> bool:
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)
