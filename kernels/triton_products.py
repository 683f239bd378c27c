"""Triton kernels around small and large products: the first of an MLP, and what heads write."""

from __future__ import annotations

import triton
import triton.language as tl

from ioi_fast.kernels.triton_math import gelu_change, nearest_tf32, product


@triton.jit(do_not_specialize=["P", "N"])
def mlp_in_delta_kernel(
    rows,
    weight,
    pre,
    index,
    out,
    P,
    N,
    D,
    F,
    PRECISION: tl.constexpr,
    VARIANTS: tl.constexpr,
    CELLS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """out [P, N, F] = change of gelu_new(pre) by rows [P, N, D] @ weight [D, F].

    The hidden row crosses memory once: its change is taken from the product's own registers. A tile
    is some variants of some cells, so that what the base has there, pre[index[n]] of cell n, is
    read once for all of them. With "tf32" rows and weight are TF32 already, and so is out.
    """
    strips, blocks = tl.cdiv(F, COLUMNS), tl.cdiv(N, CELLS)
    tile = tl.program_id(0)
    first_cell = tile // strips % blocks * CELLS
    lane = tl.arange(0, VARIANTS * CELLS)
    variant, cell = tile // strips // blocks * VARIANTS + lane // CELLS, first_cell + lane % CELLS
    row = variant.to(tl.int64) * N + cell
    column = (tile % strips) * COLUMNS + tl.arange(0, COLUMNS)
    live_row, live_column = (variant < P) & (cell < N), column < F
    total = tl.zeros((VARIANTS * CELLS, COLUMNS), tl.float32)
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
        if PRECISION == "tf32":
            # Rounded before they came: here each would be once for every warp that reads it.
            total += tl.dot(left, right, input_precision="tf32")
        else:
            total += product(left, right, PRECISION)
    shared = first_cell + tl.arange(0, CELLS)
    base_row = tl.load(index + shared, mask=shared < N, other=0)
    base = tl.load(
        pre + base_row[:, None] * F + column[None, :],
        mask=(shared < N)[:, None] & live_column[None, :],
        other=0.0,
    ).to(tl.float32)
    base = tl.broadcast_to(base[None, :, :], (VARIANTS, CELLS, COLUMNS))
    change = gelu_change(tl.reshape(base, (VARIANTS * CELLS, COLUMNS)), total)
    if PRECISION == "tf32":
        change = nearest_tf32(change)  # for the second product
    place = out + row[:, None] * F + column[None, :]
    tl.store(place, change.to(out.dtype.element_ty), mask=live_row[:, None] & live_column[None, :])


@triton.jit(do_not_specialize=["W", "C", "H"])
def head_write_kernel(
    delta,
    variant,
    heads,
    delta_z,
    w_o,
    W,
    C,
    H,
    K,
    D,
    PRECISION: tl.constexpr,
    CELLS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Adds to variant [W] of delta [P, C, D] what heads [W] write, delta_z [C, H, K] @ w_o[head].

    Variants ascend, and the first write of each goes through all of them, so that no two programs
    write one place and nothing about the writes has to be known on the host.
    """
    strips = tl.cdiv(D, COLUMNS)
    blocks = tl.cdiv(C, CELLS) * strips
    tile = tl.program_id(0).to(tl.int64)
    which, block = tile // blocks, tile % blocks
    row = tl.load(variant + which)
    if tl.load(variant + which - 1, mask=which > 0, other=-1) != row:
        cell = (block // strips) * CELLS + tl.arange(0, CELLS)
        column = (block % strips) * COLUMNS + tl.arange(0, COLUMNS)
        depth = tl.arange(0, DEPTH)
        live = (cell < C)[:, None] & (column < D)[None, :]
        place = delta + (row * C + cell)[:, None] * D + column[None, :]
        total = tl.load(place, mask=live, other=0.0).to(tl.float32)
        held, its_row = which, row
        while its_row == row:
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
            held += 1
            its_row = tl.load(variant + held, mask=held < W, other=-1)
        tl.store(place, total.to(delta.dtype.element_ty), mask=live)
