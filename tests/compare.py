"""Comparisons for tests: they raise, take NaN for a failure, and say where and by how much."""

from __future__ import annotations

import torch
from torch import Tensor


def assert_close(got: Tensor, truth: Tensor, tolerance: float, what: str = "result") -> None:
    """Raises AssertionError unless max |got − truth| ≤ tolerance · max |truth|."""
    if got.shape != truth.shape:
        raise AssertionError(f"{what}: shape {list(got.shape)}, expected {list(truth.shape)}")
    scale = float(truth.abs().max()) if truth.numel() else 0.0
    error = (got.double() - truth.double()).abs()
    worst = float(error.max()) if error.numel() else 0.0
    # Written so that NaN fails; an infinite scale would let anything pass.
    if not (worst <= tolerance * scale < float("inf")):
        at = _where_worst(error)
        raise AssertionError(
            f"{what}: error {worst:.3e} against scale {scale:.3e} (allowed ratio {tolerance:.1e}), "
            f"worst at {at}: got {float(got[at])!r}, expected {float(truth[at])!r}"
        )


def _where_worst(error: Tensor) -> tuple[int, ...]:
    flat = int(torch.nan_to_num(error, nan=torch.inf).flatten().argmax())
    return tuple(int(i) for i in torch.unravel_index(torch.tensor(flat), error.shape))


def sweep_error(values: Tensor, truth: Tensor) -> float:
    """Error of a sweep, values and truth [S, N]; raises AssertionError for NaN or other shapes.

    For each sender ‖values − truth‖₂/‖truth‖₂ over prompts if ‖truth‖ is at least 1 % of the
    largest; for the rest max |error|/max |truth| of the sweep. The largest of these is returned.
    """
    values, truth = values.flatten(0, -2).double(), truth.flatten(0, -2).double()
    if values.shape != truth.shape:
        raise AssertionError(f"shape {list(values.shape)}, expected {list(truth.shape)}")
    if not (values.isfinite().all() and truth.isfinite().all()):
        raise AssertionError("values or truth have entries that are not finite")
    size, miss = truth.norm(dim=-1), (values - truth).norm(dim=-1)
    if not size.max() > 0:
        return 0.0 if not values.any() else float("inf")
    large = size >= 0.01 * size.max()
    errors = [(miss[large] / size[large]).max()]
    if (~large).any():
        errors.append((values - truth)[~large].abs().max() / truth.abs().max())
    return float(max(errors))


def assert_sweep(values: Tensor, truth: Tensor, tolerance: float = 1e-4) -> None:
    """Raises AssertionError unless the error of a sweep is within the tolerance."""
    error = sweep_error(values, truth)
    if not error <= tolerance:
        raise AssertionError(f"error of the sweep is {error:.3e}, allowed {tolerance:.1e}")
