"""Which effects count: large ones of one sign in more prompts than chance gives."""

from __future__ import annotations

import math

from torch import Tensor

# Unless a caller says otherwise: a share of the mean metric, and the chance that any of those that
# are tried does so by luck.
LEAST, LEVEL = 0.02, 0.01


def counting(
    values: Tensor, effects: Tensor, least: float, level: float
) -> tuple[list[bool], list[float]]:
    """Which of S effects [S] count, and their p-values: they are at least so large, and values
    [S, N] pass the sign test at the level divided by S (Bonferroni).

    >>> import torch
    >>> counting(torch.tensor([[1.0] * 8, [1.0, -1.0] * 4]), torch.tensor([1.0, 0.0]), 0.5, 0.05)[0]
    [True, False]
    """
    p_values, large = sign_test(values), (effects.abs() >= least).tolist()
    tried = max(1, len(p_values))
    return [big and p <= level / tried for big, p in zip(large, p_values, strict=True)], p_values


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
