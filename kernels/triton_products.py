"""Triton kernels around small and large products: the first of an MLP, and what heads write."""

from __future__ import annotations

import triton
import triton.language as tl

from ioi_fast.kernels.triton_math import gelu_change, product


@triton.jit(do_not_specialize=["R", "D", "F"])
def mlp_in_delta_kernel(
    rows,
    weight,
    pre,
    index,
    out,
    R,
    D,
    F,
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """out [R, F] = change of gelu_new(pre) by rows [R, D] @ weight [D, F].

    The hidden row crosses memory once: its change is taken from the product's own registers. Row r
    belongs to base row index[r].
    """
    strips = tl.cdiv(F, COLUMNS)
    tile = tl.program_id(0).to(tl.int64)
    row = (tile // strips) * ROWS + tl.arange(0, ROWS)
    column = (tile % strips) * COLUMNS + tl.arange(0, COLUMNS)
    live_row, live_column = row < R, column < F
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in range(0, D, DEPTH):
        depth = first + tl.arange(0, DEPTH)
        left = tl.load(
            rows + row[:, None] * D + depth[None, :],
            mask=live_row[:, None] & (depth < D)[None, :],
            other=0.0,
        ).to(tl.float32)
        right = tl.load(
            weight + depth.to(tl.int64)[:, None] * F + column[None, :],
            mask=(depth < D)[:, None] & live_column[None, :],
            other=0.0,
        ).to(tl.float32)
        total += product(left, right, PRECISION)
    live = live_row[:, None] & live_column[None, :]
    base_row = tl.load(index + row, mask=live_row, other=0)
    base = tl.load(pre + base_row[:, None] * F + column[None, :], mask=live, other=0.0)
    change = gelu_change(base.to(tl.float32), total)
    place = out + row[:, None] * F + column[None, :]
    tl.store(place, change.to(out.dtype.element_ty), mask=live)


@triton.jit(do_not_specialize=["C", "H", "K", "D"])
def head_write_kernel(
    delta,
    variant,
    first,
    heads,
    delta_z,
    w_o,
    C,
    H,
    K,
    D,
    PRECISION: tl.constexpr,
    CELLS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Adds to some variants [C, D] what their heads write, delta_z [C, H, K] @ w_o [H, K, D].

    Variant variant[i] holds heads[first[i]:first[i + 1]], so that no two programs write one place.
    """
    strips = tl.cdiv(D, COLUMNS)
    blocks = tl.cdiv(C, CELLS) * strips
    tile = tl.program_id(0).to(tl.int64)
    which, block = tile // blocks, tile % blocks
    cell = (block // strips) * CELLS + tl.arange(0, CELLS)
    column = (block % strips) * COLUMNS + tl.arange(0, COLUMNS)
    depth = tl.arange(0, DEPTH)
    live = (cell < C)[:, None] & (column < D)[None, :]
    place = delta + (tl.load(variant + which) * C + cell)[:, None] * D + column[None, :]
    total = tl.load(place, mask=live, other=0.0).to(tl.float32)
    for held in range(tl.load(first + which), tl.load(first + which + 1)):
        head = tl.load(heads + held)
        change = tl.load(
            delta_z + (cell * H + head)[:, None] * K + depth[None, :],
            mask=(cell < C)[:, None] & (depth < K)[None, :],
            other=0.0,
        ).to(tl.float32)
        written = tl.load(
            w_o + (head * K + depth)[:, None] * D + column[None, :],
            mask=(depth < K)[:, None] & (column < D)[None, :],
            other=0.0,
        ).to(tl.float32)
        total += product(change, written, PRECISION)
    tl.store(place, total.to(delta.dtype.element_ty), mask=live)
