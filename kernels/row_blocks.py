"""Blocks of rows for operations in plain torch, so that what they make on the way stays small.

An operation of a few lines makes a dozen tensors as large as its rows. It runs on so many rows at a
time that each of them is at most FLOATS, whatever the call; what comes out is written in place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

FLOATS = 1 << 17  # of a tensor on the way: it stays in the second cache
# Rows of a product at a time: enough that a weight is read from afar seldom.
PRODUCT_ROWS = 256


def slices(total: int, size: int) -> Iterator[slice]:
    """Slices of at most `size`, and at least one, that cover 0..total."""
    step = max(1, size)
    return (slice(start, min(start + step, total)) for start in range(0, total, step))


def by_variant(rows: Tensor) -> Tensor:
    """[..., N, W] as [P, N, W]."""
    return rows.flatten(0, -3) if rows.dim() > 2 else rows[None]


def blocks(variants: int, base_rows: int, most: int) -> Iterator[tuple[slice, slice]]:
    """Variants and base rows of blocks of at most `most` rows; variants share base rows first."""
    for cells in slices(base_rows, most):
        for some in slices(variants, most // (cells.stop - cells.start)):
            yield some, cells


def in_blocks(
    run: Callable[..., Tensor], base: Sequence[Tensor], delta: Tensor, out: Tensor
) -> Tensor:
    """Writes run(*base [n, ...], delta [p, n, W]) to out for blocks of rows of delta [..., N, W].

    >>> in_blocks(torch.add, [torch.ones(3, 2)], torch.ones(5, 3, 2), torch.empty(5, 3, 2)).sum()
    tensor(60.)
    """
    delta_PNW = by_variant(delta)
    out_PN = out.view(delta_PNW.shape[:2] + out.shape[delta.dim() - 1 :])
    (P, N), most = delta_PNW.shape[:2], FLOATS // max(1, delta.shape[-1])
    for some, cells in blocks(P, N, most):
        out_PN[some, cells] = run(*(rows[cells] for rows in base), delta_PNW[some, cells])
    return out


def empty_rows(like: Tensor) -> Tensor:
    """Room for as many rows as another tensor's, side by side."""
    return torch.empty(like.shape, dtype=like.dtype, device=like.device)
