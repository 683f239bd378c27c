"""What kernels touch in Triton's interpreter: every address is looked up, every byte counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy
import torch
from torch import Tensor
from triton.runtime.interpreter import interpreter_builder

# What kernels here use to reach memory; anything else has to be wrapped before it is used.
_FORBIDDEN = ("create_atomic_rmw", "create_atomic_cas")


class OutOfBounds(AssertionError):
    """An address in no tensor that the launch was given."""


@dataclass
class Traffic:
    """Bytes that active lanes asked for, by tensor."""

    tensors: dict[str, Tensor]
    loaded: Counter = field(default_factory=Counter)
    stored: Counter = field(default_factory=Counter)

    def see(self, kind: Counter, pointers, mask) -> None:
        """Counts an access; raises OutOfBounds for a lane in none of the tensors."""
        addresses = numpy.asarray(pointers.data).ravel()
        active = numpy.broadcast_to(numpy.asarray(mask.data), pointers.data.shape).ravel()
        addresses = addresses[active.astype(bool)].astype(numpy.int64)
        if not len(addresses):
            return
        size = pointers.get_element_ty().primitive_bitwidth // 8
        left = numpy.ones(len(addresses), bool)
        for name, tensor in self.tensors.items():
            first = tensor.data_ptr()
            inside = (addresses >= first) & (addresses + size <= first + _extent(tensor))
            kind[name] += int(inside.sum()) * size
            left &= ~inside
        if left.any():
            program = getattr(interpreter_builder, "grid_idx", None)
            raise OutOfBounds(f"program {program}: {int(left.sum())} lanes in no tensor")


def _extent(tensor: Tensor) -> int:
    if not tensor.numel():
        return 0
    last = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    return (last + 1) * tensor.element_size()


@contextmanager
def guarded(**tensors: Tensor) -> Iterator[Traffic]:
    """While it is open, kernels may touch these tensors alone."""
    traffic, builder = Traffic(tensors), interpreter_builder
    load, store = builder.create_masked_load, builder.create_masked_store

    def seen_load(pointers, mask, *more):
        traffic.see(traffic.loaded, pointers, mask)
        return load(pointers, mask, *more)

    def seen_store(pointers, value, mask, *more):
        traffic.see(traffic.stored, pointers, mask)
        return store(pointers, value, mask, *more)

    def forbidden(*_):
        raise OutOfBounds("a way to memory that nothing watches")

    builder.create_masked_load, builder.create_masked_store = seen_load, seen_store
    for name in _FORBIDDEN:
        setattr(builder, name, forbidden)
    try:
        yield traffic
    finally:
        for name in ("create_masked_load", "create_masked_store", *_FORBIDDEN):
            delattr(builder, name)


@contextmanager
def unwatched(**tensors: Tensor) -> Iterator[Traffic]:
    """The same on a GPU, which only the bands around tensors watch."""
    yield Traffic(tensors)


BAND = 64  # values before and after a tensor
FILLING = -77


@dataclass
class Banded:
    """A copy of a tensor, with its strides, inside a larger one of a value that no kernel writes.

    What the tensor leaves free between its rows is of that value too.
    """

    tensor: Tensor
    whole: Tensor = field(init=False)
    inner: Tensor = field(init=False)

    def __post_init__(self) -> None:
        shape, steps = self.tensor.shape, self.tensor.stride()
        size = _extent(self.tensor) // self.tensor.element_size()
        shape_of_all, of = (size + 2 * BAND,), self.tensor
        self.whole = torch.full(shape_of_all, FILLING, dtype=of.dtype, device=of.device)
        self.inner = self.whole.as_strided(shape, steps, BAND)
        self._once(self.inner).copy_(self._once(self.tensor))

    def check(self, name: str) -> None:
        """Raises OutOfBounds if the filling around the tensor was written."""
        for band in (self.whole[:BAND], self.whole[-BAND:]):
            if not bool((band == FILLING).all()):
                raise OutOfBounds(f"{name}: written beside the tensor")

    def write_back(self) -> None:
        """What a kernel wrote, into the tensor itself."""
        self._once(self.tensor).copy_(self._once(self.inner))

    def _once(self, rows: Tensor) -> Tensor:
        """Each place once, where an axis is expanded."""
        for axis, step in enumerate(rows.stride()):
            if step == 0 and rows.shape[axis] > 1:
                rows = rows.narrow(axis, 0, 1)
        return rows
