"""Calls of kernels as a recording has them, made by hand."""

from __future__ import annotations

import torch

from ioi_fast.benchmarks.gpu.kernels.shapes import Call, Shape


def call_of(operation: str, **given: object) -> Call:
    """An operation with these arguments, tensors by their shape."""
    shapes = ((n, Shape.of(t) if isinstance(t, torch.Tensor) else t) for n, t in given.items())
    return Call(operation, tuple(shapes))
