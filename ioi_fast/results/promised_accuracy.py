"""How far a fast sweep is from the truth: the error that every figure of the project means."""

from __future__ import annotations

import torch
from torch import Tensor

# What the fast path promises against the reference in float64, for GPT-2 small's shapes. With fp32
# a question that is not so well posed has up to ten times the error of rounded weights
# (docs/design.md, Error and speed). In bf16 and TF32 errors follow the size of the difference that
# a head makes: of what it changes in the logits half of the senders are within …_MEDIAN and all
# within …_LOGITS, in every call on the models of the tests; small ones of other shapes can miss
# that. One number read from the logits keeps the promise in path patches where it is not small
# beside that change: an effect that nearly cancels can miss by far.
#
# TF32 has three more bits than bf16, and of those an eighth of its errors by the format, because we
# round its operands to nearest. Where a GPU is left to drop the bits, errors are larger
# (tests/in_interpreter/test_tf32.py plants that).
PROMISED = {"fp32": 1e-4, "tf32": 2.5e-3, "bf16": 2e-2, "fp64": 1e-6}
BF16_MEDIAN, BF16_LOGITS = 5e-3, 3e-2
TF32_MEDIAN, TF32_LOGITS = 1e-3, 1.25e-2


def sweep_error(values: Tensor, truth: Tensor) -> float:
    """Largest error of a sweep's senders, values and truth [..., N]; raises as `sweep_errors` does.

    >>> import torch
    >>> sweep_error(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 2.0]]))
    0.0
    """
    return float(sweep_errors(values, truth).max())


def sweep_errors(values: Tensor, truth: Tensor) -> Tensor:
    """Errors of the senders of a sweep, values and truth [..., N]; their number may be less.

    For each sender ‖values − truth‖₂/‖truth‖₂ over prompts if ‖truth‖ is at least 1 % of the
    largest; for the rest together max |error|/max |truth| of the sweep. Raises AssertionError for
    other shapes and NaN.
    """
    if values.shape != truth.shape:
        raise AssertionError(f"shape {list(values.shape)}, expected {list(truth.shape)}")
    if not (values.isfinite().all() and truth.isfinite().all()):
        raise AssertionError("values or truth have entries that are not finite")
    values, truth = values.flatten(0, -2).double(), truth.flatten(0, -2).double()
    size, miss = truth.norm(dim=-1), (values - truth).norm(dim=-1)
    if not size.max() > 0:
        return size.new_full((1,), 0.0 if not values.any() else float("inf"))
    large = size >= 0.01 * size.max()
    errors = miss[large] / size[large]
    if (~large).any():
        rest = (values - truth)[~large].abs().max() / truth.abs().max()
        errors = torch.cat([errors, rest[None]])
    return errors
