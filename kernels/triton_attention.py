"""Attention in difference form as Triton kernels, with the table of heads read inside.

One program takes one head of one prompt and a tile of its variants: the base's queries, keys and
values, its scores and its pattern are made once and serve all of them. Of a tile that is frozen
nothing but the table is read. Formulas are those of torch_ops.attention_delta.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ioi_fast.kernels.triton_math import expm1, product

LIVE = tl.constexpr(-1)
FROZEN = tl.constexpr(-2)
HIDDEN = tl.constexpr(-1.0e30)  # a score that no query sees
NEAR = tl.constexpr(1.0)  # a score that moves further counts as far
MOST = tl.constexpr(0.5)  # so much of the sum of weights changed: all of them did
# Numbers that say nothing about where rows begin; of the others a launch is told whether they are
# multiples of 16.
UNALIGNED = ["N", "P", "H", "T", "S", "C", "table_p", "table_n", "table_t", "table_h"]


@triton.jit
def load_rows(base, row, step, column, mask):
    """Rows [rows, columns] as fp32, zero where the mask is not set."""
    return tl.load(base + row[:, None] * step + column[None, :], mask=mask, other=0.0).to(
        tl.float32
    )


@triton.jit
def softmax(scores):
    """Weights of each row; the largest score of a row is finite."""
    weights = tl.exp(scores - tl.max(scores, 1)[:, None])
    return weights / tl.sum(weights, 1)[:, None]


@triton.jit
def pattern_change(scores, pattern, move, seen):
    """Change of softmax weights [rows, keys] when scores move; unseen keys keep weight 0.

    Changes sum to zero: that of the largest weight comes from the others, as exact as they are.
    """
    # Of what is the same for all variants only numbers a row are made here: more would be held in
    # registers over the loop.
    top = tl.max(tl.where(seen, scores, HIDDEN), 1)[:, None]
    moved = tl.where(seen, scores + move, HIDDEN)
    moved_top = tl.max(moved, 1)[:, None]
    grown = tl.exp(moved - moved_top) * tl.max(pattern, 1)[:, None]
    move = tl.where(seen, move - (moved_top - top), 0.0)
    near = expm1(tl.minimum(tl.maximum(move, -NEAR), NEAR))
    c = tl.where(tl.abs(move) > NEAR, grown - pattern, pattern * near)
    total = tl.sum(tl.where(tl.abs(move) > NEAR, grown, pattern + c), 1)[:, None]
    changed = tl.sum(c, 1)[:, None]
    # total − 1 is Σc too, and the more exact of both where most of the sum changed.
    changed = tl.where(tl.abs(changed) > MOST, total - 1, changed)
    change = (c - pattern * changed) / total
    largest = tl.argmax(tl.minimum(pattern, pattern + change), 1)
    key = tl.arange(0, change.shape[1])
    others = tl.where(key[None, :] == largest[:, None], 0.0, change)
    return tl.where(key[None, :] == largest[:, None], -tl.sum(others, 1)[:, None], others)


@triton.jit
def places(changed, slot, C, key):
    """Which key each slot changes, as rows of zeros with a one, and whether it changes any.

    A product with it moves a number to its key or back: one term a sum, so that nothing is rounded.
    """
    slot_key = tl.load(changed + slot, mask=slot < C, other=-1)
    place = (slot_key[:, None] == key[None, :]).to(tl.float32)
    return place, slot_key >= 0


# fmt: off
@triton.jit(do_not_specialize=UNALIGNED)
def attention_delta_queries(
    q, k, v, delta_q, delta_k, delta_v, at, changed, table, sources, out,
    N, P, H, T, S, C, K, scale,
    q_n, q_t, q_h, k_n, k_s, k_h, v_n, v_s, v_h,
    dq_p, dq_n, dq_t, dq_h, dk_p, dk_n, dk_c, dk_h, dv_p, dv_n, dv_c, dv_h,
    table_p, table_n, table_t, table_h, sources_x, sources_n, sources_t, sources_h,
    PRECISION: tl.constexpr, VARIANTS: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
    SLOTS: tl.constexpr, WIDTH: tl.constexpr,
):
    # fmt: on
    """out [P, N, T, H, K]: all queries of a variant are the rows of a product.

    Keys change at `changed` [N, C]; a slot at −1 is unused, and its rows may hold anything.
    """
    tiles, blocks = tl.cdiv(P, VARIANTS), tl.cdiv(T, QUERIES)
    program = tl.program_id(0).to(tl.int64)
    first = program % tiles * VARIANTS
    block = program // tiles % blocks
    n, h = program // tiles // blocks // H, program // tiles // blocks % H
    query = block * QUERIES + tl.arange(0, QUERIES)
    key, column = tl.arange(0, KEYS), tl.arange(0, WIDTH)
    slot, some = tl.arange(0, SLOTS), first + tl.arange(0, VARIANTS)
    query_used, column_used = query < T, column < K
    table += n * table_n + h * table_h
    out += (n * T * H + h) * K
    tile = tl.load(
        table + some[:, None] * table_p + query[None, :] * table_t,
        mask=(some < P)[:, None] & query_used[None, :],
        other=-2,
    ).to(tl.int32)
    if tl.max(tl.max((tile == LIVE).to(tl.int32), 1), 0) > 0:
        position = tl.load(at + n * T + query, mask=query_used, other=0)
        keep = (key < S)[:, None] & column_used[None, :]
        asked = query_used[:, None] & column_used[None, :]
        k0 = load_rows(k + n * k_n + h * k_h, key, k_s, column, keep)
        v0 = load_rows(v + n * v_n + h * v_h, key, v_s, column, keep)
        q0 = load_rows(q + n * q_n + h * q_h, query, q_t, column, asked)
        seen = (key[None, :] <= position[:, None]) & (key < S)[None, :]
        scores = tl.dot(q0, tl.trans(k0), input_precision="ieee") * scale
        pattern = softmax(tl.where(seen, scores, HIDDEN))
        for variant in range(first, tl.minimum(first + VARIANTS, P)):
            codes = tl.load(
                table + variant * table_p + query * table_t, mask=query_used, other=-2
            ).to(tl.int32)
            live = codes == LIVE
            if tl.max(live.to(tl.int32), 0) > 0:
                used = live[:, None] & column_used[None, :]
                dq_base = delta_q + variant * dq_p + n * dq_n + h * dq_h
                dk_base = delta_k + variant * dk_p + n * dk_n + h * dk_h
                dv_base = delta_v + variant * dv_p + n * dv_n + h * dv_h
                dq = load_rows(dq_base, query, dq_t, column, used)
                move = product(dq, tl.trans(k0), PRECISION)
                for begin in range(0, C, SLOTS):
                    place, held = places(changed + n * C, begin + slot, C, key)
                    own = held[:, None] & column_used[None, :]
                    dk = load_rows(dk_base, begin + slot, dk_c, column, own)
                    private = product(q0 + dq, tl.trans(dk), PRECISION)
                    move += tl.dot(private, place, input_precision="ieee")
                change = pattern_change(scores, pattern, move * scale, seen)
                z = product(change, v0, PRECISION)
                for begin in range(0, C, SLOTS):
                    place, held = places(changed + n * C, begin + slot, C, key)
                    own = held[:, None] & column_used[None, :]
                    dv = load_rows(dv_base, begin + slot, dv_c, column, own)
                    weights = tl.dot(pattern + change, tl.trans(place), input_precision="ieee")
                    z += product(weights, dv, PRECISION)
                rows = out + variant * N * T * H * K + query[:, None] * H * K + column[None, :]
                tl.store(rows, z.to(out.dtype.element_ty), mask=used)
    for variant in range(first, tl.minimum(first + VARIANTS, P)):
        codes = tl.load(table + variant * table_p + query * table_t, mask=query_used, other=-1).to(
            tl.int32
        )
        instead = codes != LIVE
        if tl.max(instead.to(tl.int32), 0) > 0:
            taken = (codes >= 0)[:, None] & column_used[None, :]
            source = sources + n * sources_n + h * sources_h
            source += tl.maximum(codes, 0)[:, None].to(tl.int64) * sources_x
            row = tl.load(
                source + query[:, None] * sources_t + column[None, :], mask=taken, other=0.0
            )
            rows = out + variant * N * T * H * K + query[:, None] * H * K + column[None, :]
            kept = instead[:, None] & column_used[None, :]
            tl.store(rows, row.to(out.dtype.element_ty), mask=kept)


# fmt: off
@triton.jit(do_not_specialize=UNALIGNED)
def attention_delta_last(
    q, k, v, delta_q, delta_k, delta_v, at, changed, table, sources, out,
    N, P, H, T, S, C, K, scale,
    q_n, q_t, q_h, k_n, k_s, k_h, v_n, v_s, v_h,
    dq_p, dq_n, dq_t, dq_h, dk_p, dk_n, dk_c, dk_h, dv_p, dv_n, dv_c, dv_h,
    table_p, table_n, table_t, table_h, sources_x, sources_n, sources_t, sources_h,
    PRECISION: tl.constexpr, VARIANTS: tl.constexpr, KEYS: tl.constexpr, WIDTH: tl.constexpr,
):
    # fmt: on
    """out [P, N, 1, H, K]: a prompt's one query, so that variants are the rows of a product.

    Arguments are those of attention_delta_queries, with T = 1. A changed key is a variant's own:
    it meets one query, and needs no matrix product.
    """
    tiles = tl.cdiv(P, VARIANTS)
    program = tl.program_id(0).to(tl.int64)
    n, h = program // tiles // H, program // tiles % H
    variant = program % tiles * VARIANTS + tl.arange(0, VARIANTS)
    key, column = tl.arange(0, KEYS), tl.arange(0, WIDTH)
    variant_used, column_used = variant < P, column < K
    codes = tl.load(
        table + variant * table_p + n * table_n + h * table_h, mask=variant_used, other=-2
    ).to(tl.int32)
    live = codes == LIVE
    used = live[:, None] & column_used[None, :]
    z = tl.zeros((VARIANTS, WIDTH), tl.float32)
    if tl.max(live.to(tl.int32), 0) > 0:
        keep = (key < S)[:, None] & column_used[None, :]
        k0 = load_rows(k + n * k_n + h * k_h, key, k_s, column, keep)
        v0 = load_rows(v + n * v_n + h * v_h, key, v_s, column, keep)
        q0 = tl.load(q + n * q_n + h * q_h + column, mask=column_used, other=0.0).to(tl.float32)
        dq = load_rows(delta_q + n * dq_n + h * dq_h, variant, dq_p, column, used)
        seen = ((key <= tl.load(at + n)) & (key < S))[None, :]
        scores = (tl.sum(k0 * q0[None, :], 1) * scale)[None, :]
        pattern = softmax(tl.where(seen, scores, HIDDEN))
        move = product(dq, tl.trans(k0), PRECISION)
        for slot in range(C):
            place = tl.load(changed + n * C + slot)
            if place >= 0:
                dk_base = delta_k + n * dk_n + slot * dk_c + h * dk_h
                dk = load_rows(dk_base, variant, dk_p, column, used)
                score = tl.sum((q0[None, :] + dq) * dk, 1)
                move += tl.where(key[None, :] == place, score[:, None], 0.0)
        change = pattern_change(scores, pattern, move * scale, seen)
        z = product(change, v0, PRECISION)
        for slot in range(C):
            place = tl.load(changed + n * C + slot)
            if place >= 0:
                dv_base = delta_v + n * dv_n + slot * dv_c + h * dv_h
                dv = load_rows(dv_base, variant, dv_p, column, used)
                weight = tl.sum(tl.where(key[None, :] == place, pattern + change, 0.0), 1)
                z += weight[:, None] * dv
    source = sources + n * sources_n + h * sources_h
    source += tl.maximum(codes, 0)[:, None].to(tl.int64) * sources_x
    taken = (codes >= 0)[:, None] & column_used[None, :]
    row = tl.load(source + column[None, :], mask=taken, other=0.0).to(tl.float32)
    z = tl.where(live[:, None], z, row)
    rows = out + ((variant * N + n)[:, None] * H + h) * K + column[None, :]
    tl.store(rows, z.to(out.dtype.element_ty), mask=variant_used[:, None] & column_used[None, :])
