"""The sign test: whether an effect has the same sign in more prompts than chance gives."""

from __future__ import annotations

import math

from torch import Tensor


def sign_test(values: Tensor) -> list[float]:
    """Two-sided p-values of [S, N] values against equal chances of either sign, exact; zeros, which
    have no sign, are left out.

    >>> import torch
    >>> sign_test(torch.tensor([[1.0] * 8, [1.0, -1.0] * 4]))
    [0.0078125, 1.0]
    """
    above, below = (values > 0).sum(-1).tolist(), (values < 0).sum(-1).tolist()
    return [_two_sided(up, down) for up, down in zip(above, below, strict=True)]


def _two_sided(above: int, below: int) -> float:
    total, fewer = above + below, min(above, below)
    tail = sum(math.comb(total, count) for count in range(fewer + 1))
    # As whole numbers, which are too large for floats.
    return min(1.0, 2 * tail / 2**total) if total < 1000 else min(1.0, _divided(2 * tail, total))


def _divided(count: int, power: int) -> float:
    """count / 2**power where neither fits a float."""
    shift = max(0, count.bit_length() - 64)
    return math.ldexp(count >> shift, shift - power)
