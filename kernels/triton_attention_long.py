"""Attention in difference form for prompts or heads that do not fit the registers of one program.

One program takes 16 queries of one head of one prompt of one variant and goes through the keys in
blocks, three times: for the largest scores, for the sums, and for the change itself. Nothing as
long as a prompt, or as wide as a head, is held. Formulas are those of torch_ops.attention_delta.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ioi_fast.kernels.triton_attention import (
    HIDDEN,
    LIVE,
    MOST,
    NEAR,
    UNALIGNED,
    load_rows,
    places,
)
from ioi_fast.kernels.triton_math import expm1, product


# fmt: off
@triton.jit
def moved_scores(
    q, dq, k, dk, changed, query, live, key, position, S, C, K, q_t, dq_t, k_s, dk_c, scale,
    PRECISION: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, SLOTS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    # fmt: on
    """Scores of a block of keys [queries, keys], what they move by, and which are seen.

    Columns go by blocks too: what is read again for every block of keys comes from a cache, and
    held over the loop it would not fit the registers.
    """
    scores = tl.zeros((QUERIES, KEYS), tl.float32)
    move = scores
    for begin in range(0, K, DEPTH):
        column = begin + tl.arange(0, DEPTH)
        used = live[:, None] & (column < K)[None, :]
        keep = (key < S)[:, None] & (column < K)[None, :]
        q0 = load_rows(q, query, q_t, column, used)
        change = load_rows(dq, query, dq_t, column, used)
        k0 = load_rows(k, key, k_s, column, keep)
        scores += tl.dot(q0, tl.trans(k0), input_precision="ieee")
        move += product(change, tl.trans(k0), PRECISION)
        for first in range(0, C, SLOTS):
            slot = first + tl.arange(0, SLOTS)
            place, held = places(changed, slot, C, key)
            if tl.max(tl.max(place, 1), 0) > 0:  # a slot of this block of keys
                own = held[:, None] & (column < K)[None, :]
                moved_key = load_rows(dk, slot, dk_c, column, own)
                private = product(q0 + change, tl.trans(moved_key), PRECISION)
                move += tl.dot(private, place, input_precision="ieee")
    seen = (key[None, :] <= position[:, None]) & (key < S)[None, :]
    return scores * scale, tl.where(seen, move * scale, 0.0), seen


@triton.jit
def weight_change(scores, move, seen, top, moved_top, weights):
    """Weights before [queries, keys], what they change by but for the sum, what they grow to, and
    which moved too far for the former; `weights` are sums over keys of exp(score − top)."""
    pattern = tl.where(seen, tl.exp(scores - top[:, None]), 0.0) / weights[:, None]
    grown = tl.where(seen, tl.exp(scores + move - moved_top[:, None]), 0.0) / weights[:, None]
    move = tl.where(seen, move - (moved_top - top)[:, None], 0.0)
    far = tl.abs(move) > NEAR
    near = expm1(tl.minimum(tl.maximum(move, -NEAR), NEAR))
    return pattern, tl.where(far, grown - pattern, pattern * near), grown, far


# fmt: off
@triton.jit(do_not_specialize=UNALIGNED)
def attention_delta_long(
    q, k, v, delta_q, delta_k, delta_v, at, changed, table, sources, out,
    N, P, H, T, S, C, K, scale,
    q_n, q_t, q_h, k_n, k_s, k_h, v_n, v_s, v_h,
    dq_p, dq_n, dq_t, dq_h, dk_p, dk_n, dk_c, dk_h, dv_p, dv_n, dv_c, dv_h,
    table_p, table_n, table_t, table_h, sources_x, sources_n, sources_t, sources_h,
    PRECISION: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, SLOTS: tl.constexpr,
    DEPTH: tl.constexpr, WIDTH: tl.constexpr,
):
    # fmt: on
    """out [P, N, T, H, K]; arguments are those of attention_delta_queries.

    A program makes WIDTH columns of z. Variants are the fastest of the programs' axes: those that
    run together read the same base.
    """
    blocks, parts = tl.cdiv(T, QUERIES), tl.cdiv(K, WIDTH)
    program = tl.program_id(0).to(tl.int64)
    variant, part, block = program % P, program // P % parts, program // P // parts % blocks
    h, n = program // P // parts // blocks % H, program // P // parts // blocks // H
    query = block * QUERIES + tl.arange(0, QUERIES)
    column, slot = part * WIDTH + tl.arange(0, WIDTH), tl.arange(0, SLOTS)
    query_used, column_used = query < T, column < K
    table += variant * table_p + n * table_n + h * table_h
    codes = tl.load(table + query * table_t, mask=query_used, other=-2).to(tl.int32)
    live = codes == LIVE
    used = live[:, None] & column_used[None, :]
    z = tl.zeros((QUERIES, WIDTH), tl.float32)
    if tl.max(live.to(tl.int32), 0) > 0:
        position = tl.load(at + n * T + query, mask=query_used, other=0)
        q += n * q_n + h * q_h
        delta_q += variant * dq_p + n * dq_n + h * dq_h
        k += n * k_n + h * k_h
        v += n * v_n + h * v_h
        delta_k += variant * dk_p + n * dk_n + h * dk_h
        delta_v += variant * dv_p + n * dv_n + h * dv_h
        changed += n * C
        last = tl.minimum(tl.max(tl.where(live, position, 0), 0) + 1, S)  # no key after is seen
        top = tl.full((QUERIES,), HIDDEN, tl.float32)
        moved_top, weights = top, tl.zeros((QUERIES,), tl.float32)
        # Every query sees key 0, so that the first block leaves both of them finite.
        for begin in range(0, last, KEYS):
            key = begin + tl.arange(0, KEYS)
            scores, move, seen = moved_scores(
                q, delta_q, k, delta_k, changed, query, live, key, position, S, C, K,
                q_t, dq_t, k_s, dk_c, scale, PRECISION, QUERIES, KEYS, SLOTS, DEPTH,
            )  # fmt: skip
            shown = tl.where(seen, scores, HIDDEN)
            higher = tl.maximum(top, tl.max(shown, 1))
            weights = weights * tl.exp(top - higher)
            weights += tl.sum(tl.exp(shown - higher[:, None]), 1)
            top = higher
            moved_top = tl.maximum(moved_top, tl.max(tl.where(seen, scores + move, HIDDEN), 1))
        total = tl.zeros((QUERIES,), tl.float32)
        grown_by = total
        for begin in range(0, last, KEYS):
            key = begin + tl.arange(0, KEYS)
            scores, move, seen = moved_scores(
                q, delta_q, k, delta_k, changed, query, live, key, position, S, C, K,
                q_t, dq_t, k_s, dk_c, scale, PRECISION, QUERIES, KEYS, SLOTS, DEPTH,
            )  # fmt: skip
            pattern, c, grown, far = weight_change(scores, move, seen, top, moved_top, weights)
            total += tl.sum(tl.where(far, grown, pattern + c), 1)
            grown_by += tl.sum(c, 1)
        grown_by = tl.where(tl.abs(grown_by) > MOST, total - 1, grown_by)
        largest, its_key = tl.full((QUERIES,), -1.0, tl.float32), tl.zeros((QUERIES,), tl.int64)
        rest = tl.zeros((QUERIES,), tl.float32)
        for begin in range(0, last, KEYS):
            key = begin + tl.arange(0, KEYS)
            scores, move, seen = moved_scores(
                q, delta_q, k, delta_k, changed, query, live, key, position, S, C, K,
                q_t, dq_t, k_s, dk_c, scale, PRECISION, QUERIES, KEYS, SLOTS, DEPTH,
            )  # fmt: skip
            pattern, c, grown, far = weight_change(scores, move, seen, top, moved_top, weights)
            change = (c - pattern * grown_by[:, None]) / total[:, None]
            rest -= tl.sum(change, 1)
            stays = tl.minimum(pattern, pattern + change)
            here = tl.max(stays, 1)
            its_key = tl.where(here > largest, begin + tl.argmax(stays, 1), its_key)
            largest = tl.maximum(largest, here)
            keep = (key < S)[:, None] & column_used[None, :]
            z += product(change, load_rows(v, key, v_s, column, keep), PRECISION)
            for first in range(0, C, SLOTS):
                place, held = places(changed, first + slot, C, key)
                if tl.max(tl.max(place, 1), 0) > 0:
                    own = held[:, None] & column_used[None, :]
                    dv = load_rows(delta_v, first + slot, dv_c, column, own)
                    moved = tl.dot(pattern + change, tl.trans(place), input_precision="ieee")
                    z += product(moved, dv, PRECISION)
        # Changes sum to zero: what rounding left of the sum belongs to the weight that is largest,
        # times its base value (what that value changes by it has met with the whole weight).
        z += rest[:, None] * load_rows(v, its_key, v_s, column, used)
    taken = (codes >= 0)[:, None] & column_used[None, :]
    source = sources + n * sources_n + h * sources_h
    source += tl.maximum(codes, 0)[:, None].to(tl.int64) * sources_x
    row = tl.load(source + query[:, None] * sources_t + column[None, :], mask=taken, other=0.0)
    z = tl.where(live[:, None], z, row.to(tl.float32))
    rows = out + ((variant * N + n) * T + query[:, None]) * H * K + h * K + column[None, :]
    tl.store(rows, z.to(out.dtype.element_ty), mask=query_used[:, None] & column_used[None, :])
