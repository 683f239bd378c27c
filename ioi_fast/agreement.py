"""How far a fast sweep is from the truth: the error that every figure of the project means."""

from __future__ import annotations

from torch import Tensor

# What the fast path promises against the reference in float64.
PROMISED = {"fp32": 1e-4, "fp64": 1e-6}


def sweep_error(values: Tensor, truth: Tensor) -> float:
    """Error of a sweep, values and truth [..., N]; raises AssertionError for other shapes and NaN.

    For each sender ‖values − truth‖₂/‖truth‖₂ over prompts if ‖truth‖ is at least 1 % of the
    largest; for the rest max |error|/max |truth| of the sweep. The largest of these is returned.

    >>> import torch
    >>> sweep_error(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 2.0]]))
    0.0
    """
    if values.shape != truth.shape:
        raise AssertionError(f"shape {list(values.shape)}, expected {list(truth.shape)}")
    if not (values.isfinite().all() and truth.isfinite().all()):
        raise AssertionError("values or truth have entries that are not finite")
    values, truth = values.flatten(0, -2).double(), truth.flatten(0, -2).double()
    size, miss = truth.norm(dim=-1), (values - truth).norm(dim=-1)
    if not size.max() > 0:
        return 0.0 if not values.any() else float("inf")
    large = size >= 0.01 * size.max()
    errors = [(miss[large] / size[large]).max()]
    if (~large).any():
        errors.append((values - truth)[~large].abs().max() / truth.abs().max())
    return float(max(errors))
