"""Triton kernels that go through rows once: LayerNorm, the read-out, an activation, rounding.

A row of a variant belongs to a base row: row r of [P·N, D] to base row r mod N.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ioi_fast.kernels.triton_math import gelu_change, nearest_tf32, normed_change


@triton.jit(do_not_specialize=["N"])
def layernorm_delta_kernel(x, delta, gain, out, N, D, epsilon, BLOCK: tl.constexpr):
    """out [P·N, D] = change of LayerNorm(x [N, D]) by delta [P·N, D]; one program a row."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    live = column < D
    base = tl.load(x + (row % N) * D + column, mask=live, other=0.0).to(tl.float32)
    move = tl.load(delta + row * D + column, mask=live, other=0.0).to(tl.float32)
    scale = tl.load(gain + column, mask=live, other=0.0).to(tl.float32)
    change = normed_change(base, move, scale, live, D, epsilon)
    tl.store(out + row * D + column, change.to(out.dtype.element_ty), mask=live)


@triton.jit(do_not_specialize=["N"])
def readout_delta_kernel(x, delta, gain, direction, out, N, D, epsilon, BLOCK: tl.constexpr):
    """out [P·N] = the same change times direction [N, D]; no normalised row is ever written."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    live, base_row = column < D, row % N
    base = tl.load(x + base_row * D + column, mask=live, other=0.0).to(tl.float32)
    move = tl.load(delta + row * D + column, mask=live, other=0.0).to(tl.float32)
    scale = tl.load(gain + column, mask=live, other=0.0).to(tl.float32)
    along = tl.load(direction + base_row * D + column, mask=live, other=0.0).to(tl.float32)
    change = normed_change(base, move, scale, live, D, epsilon)
    tl.store(out + row, tl.sum(change * along, 0))


@triton.jit(do_not_specialize=["base_size", "size"])
def gelu_delta_kernel(pre, delta, out, base_size, size, BLOCK: tl.constexpr):
    """out [P·N·F] = change of gelu_new(pre [N·F]) by delta; may be written onto delta."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = place < size
    base = tl.load(pre + place % base_size, mask=live, other=0.0).to(tl.float32)
    move = tl.load(delta + place, mask=live, other=0.0).to(tl.float32)
    change = gelu_change(base, move)
    tl.store(out + place, change.to(out.dtype.element_ty), mask=live)


@triton.jit(do_not_specialize=["size"])
def to_tf32_kernel(rows, out, size, BLOCK: tl.constexpr):
    """out [size] = rows [size] rounded to TF32."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = place < size
    value = tl.load(rows + place, mask=live, other=0.0).to(tl.float32)
    tl.store(out + place, nearest_tf32(value).to(out.dtype.element_ty), mask=live)
