"""How well posed a question is: how far its true answer moves when weights are rounded.

No fp32 arithmetic knows an answer better than that. Where what is left of a difference in a metric
is a thousandth of the differences that cancel in it, rounding moves the answer by 1e-4 of itself.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ioi_fast import GPT2
from ioi_fast.results.promised_accuracy import sweep_error

ROUNDING = 2.0**-24  # of fp32, relative
DRAWS = 6
# How much further than weights alone the roundings of all steps may move an answer. Of some 4,000
# random sweeps 0.1 % missed 1e-4, by 2 to 7 times what rounded weights moved.
STEPS = 10


def rounded(model: GPT2, seed: int) -> GPT2:
    """The model in float64, each weight off by up to a rounding of fp32."""
    generator = torch.Generator().manual_seed(seed)

    def off(weight: Tensor) -> Tensor:
        drawn = torch.rand(weight.shape, generator=generator, dtype=torch.float64)
        return weight.double() * (1 + ROUNDING * (2 * drawn - 1))

    return GPT2(model.config, model.weights.each(off))


def moved_by_rounding(model: GPT2, truth: Tensor, ask: Callable[[GPT2], Tensor]) -> float:
    """The largest error that rounded weights make of a true answer; `ask` gives it for a model."""
    return max(sweep_error(ask(rounded(model, seed)), truth) for seed in range(DRAWS))
