"""Attention of runs, and in difference form, in plain torch; torch_ops.py has the rest."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ioi_fast.kernels.reference import by_table, later_keys
from ioi_fast.kernels.row_blocks import FLOATS, slices

# A score that moves further counts as far.
_NEAR = 1.0
# So much of the sum of softmax weights changed: all of them did.
_MOST = 0.5


def attention(q_NTHK: Tensor, k_NTHK: Tensor, v_NTHK: Tensor, scale: float) -> Tensor:
    """z of every query over the keys up to its own, [N, T, H, K]."""
    heads = (rows.transpose(1, 2) for rows in (q_NTHK, k_NTHK, v_NTHK))
    return F.scaled_dot_product_attention(*heads, is_causal=True, scale=scale).transpose(1, 2)


def attention_delta(
    q_NTHK: Tensor,
    k_NSHK: Tensor,
    v_NSHK: Tensor,
    delta_q: Tensor,
    delta_k: Tensor,
    delta_v: Tensor,
    scale: float,
    at_NT: Tensor | None = None,
    changed_NC: Tensor | None = None,
    table: Tensor | None = None,
    sources: Tensor | None = None,
) -> Tensor:
    """Change of z when q, k and v change; shapes as in the reference."""
    (N, T, H, K), S, shape = q_NTHK.shape, k_NSHK.shape[1], delta_q.shape
    deltas = [t if t.dim() == 5 else t[None] for t in (delta_q, delta_k, delta_v)]
    if at_NT is None:
        at_NT = torch.arange(T, device=q_NTHK.device).expand(N, T)
    if table is not None:
        table = table if table.dim() == 4 else table[None]
    out = torch.empty(deltas[0].shape, dtype=q_NTHK.dtype, device=q_NTHK.device)
    P, row = len(out), max(1, S, K, deltas[1].shape[2])
    for n, t, h, p in _blocks((N, T, H, P), row):
        q, k, v = q_NTHK[n, t, h], k_NSHK[n, :, h], v_NSHK[n, :, h]
        dq, dk, dv = deltas[0][p, n, t, h], deltas[1][p, n, :, h], deltas[2][p, n, :, h]
        changed = None if changed_NC is None else changed_NC[n]
        delta_z = _attention_delta(q, k, v, dq, dk, dv, scale, at_NT[n, t], changed)
        if table is not None:
            codes = table[p if len(table) > 1 else slice(None), n, t, h]
            held = None if sources is None else sources[:, n, t, h]
            delta_z = by_table(delta_z, codes, held)
        out[p, n, t, h] = delta_z
    return out.view(shape)


def _blocks(sizes: tuple[int, int, int, int], row: int) -> Iterator[tuple[slice, ...]]:
    """Slices of prompts, queries, heads and variants, with `row` numbers for each of their rows.

    All queries and heads of a prompt where they fit, then variants, which share what is made of the
    base, then other prompts.
    """
    steps, left = [0, 0, 0, 0], FLOATS // row
    for axis in (1, 2, 3, 0):
        steps[axis] = max(1, min(sizes[axis], left))
        left //= steps[axis]
    return itertools.product(*(list(slices(*one)) for one in zip(sizes, steps, strict=True)))


def _attention_delta(
    q_NTHK: Tensor,
    k_NSHK: Tensor,
    v_NSHK: Tensor,
    delta_q: Tensor,
    delta_k: Tensor,
    delta_v: Tensor,
    scale: float,
    at_NT: Tensor,
    changed_NC: Tensor | None,
) -> Tensor:
    """δs = (δq·K + q'·δK)·scale moves the scores; `_pattern_change` makes of it the change of
    weights."""
    q, k, v = (t.transpose(1, 2) for t in (q_NTHK, k_NSHK, v_NSHK))
    dq, dk, dv = (t.transpose(2, 3) for t in (delta_q, delta_k, delta_v))
    later = later_keys(q_NTHK, k_NSHK, at_NT)
    scores = (q @ k.mT).mul_(scale).masked_fill_(later, -torch.inf)
    pattern = scores.softmax(-1)
    private = (q + dq) @ dk.mT
    if changed_NC is None:
        move = shared_product(dq, k.mT).add_(private)
    else:
        used = changed_NC >= 0
        columns = changed_NC.clamp(min=0)[:, None, None, :].expand_as(private)
        private = private.mul_(used[:, None, None, :])
        move = shared_product(dq, k.mT).scatter_add_(-1, columns, private)
    move = move.mul_(scale).masked_fill_(later, 0)
    change = _pattern_change(scores, pattern, move)
    weights = pattern + change
    if changed_NC is not None:
        weights = weights.gather(-1, columns).mul_(used[:, None, None, :])
    return shared_product(change, v).add_(weights @ dv).transpose(2, 3)


def _pattern_change(scores: Tensor, pattern: Tensor, move: Tensor) -> Tensor:
    """Change of softmax weights a [..., S] when scores s move by δs; hidden keys have score −∞.

    With c = a·(exp(δs) − 1) the new weights are (a + c)/Σ(a + c), so that δa = (c − a·Σc)/Σ(a + c).
    δs is shifted, which changes no weight, until the largest new score is as large as the largest
    old one: nothing overflows and the sum can't vanish. A weight whose score moves far takes its
    c from both scores, since it may be 0 before. A weight that stays is no difference of two nearly
    equal numbers, however far the scores of others move; only where most of the sum changes, and
    with it every weight, are new and old weights subtracted.
    """
    moved = scores + move
    moved_top = moved.amax(-1, keepdim=True)
    grown = torch.exp(moved - moved_top) * pattern.amax(-1, keepdim=True)
    move = move - (moved_top - scores.amax(-1, keepdim=True))
    far = move.abs() > _NEAR
    c = torch.where(far, grown - pattern, pattern * torch.expm1(move.clamp(-_NEAR, _NEAR)))
    total = torch.where(far, grown, pattern + c).sum(-1, keepdim=True)
    changed = c.sum(-1, keepdim=True)
    little = (c - pattern * changed) / total
    change = torch.where(changed.abs() > _MOST, (pattern + c) / total - pattern, little)
    # Changes of weights sum to zero. That of the largest weight would be a difference of two
    # numbers near 1; from the others it comes as exact as they are.
    largest = torch.minimum(pattern, pattern + change).argmax(-1, keepdim=True)
    change.scatter_(-1, largest, 0)
    return change.scatter_(-1, largest, -change.sum(-1, keepdim=True))


def shared_product(rows: Tensor, base: Tensor) -> Tensor:
    """rows [P, N, H, T, X] @ base [N, H, X, Y]: all variants of a prompt against one base."""
    P, N, H, T, X = rows.shape
    together = rows.permute(1, 2, 0, 3, 4).reshape(N, H, P * T, X) @ base
    return together.view(N, H, P, T, -1).permute(2, 0, 1, 3, 4).contiguous()
