"""Comparisons for tests: they raise, take NaN for a failure, and say where and by how much."""

from __future__ import annotations

from collections.abc import Callable

import torch
from conditioning import STEPS, moved_by_rounding
from torch import Tensor

from ioi_fast import GPT2
from ioi_fast.results.promised_accuracy import PROMISED, sweep_error

# What is allowed where both sides run in float64 and results are stored as float32.
STORED = 3e-7


def assert_close(
    got: Tensor, truth: Tensor, tolerance: float = PROMISED["fp32"], what: str = "result"
) -> None:
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


def assert_sweep(values: Tensor, truth: Tensor, tolerance: float = PROMISED["fp32"]) -> None:
    """Raises AssertionError unless the error of a sweep is within the tolerance."""
    error = sweep_error(values, truth)
    if not error <= tolerance:
        raise AssertionError(f"error of the sweep is {error:.3e}, allowed {tolerance:.1e}")


def assert_exact(
    values: Tensor,
    truth: Tensor,
    model: GPT2,
    ask: Callable[[GPT2], Tensor],
    tolerance: float = PROMISED["fp32"],
) -> None:
    """Raises AssertionError unless a sweep is within the tolerance, or, where the question is not
    that well posed, within STEPS times what rounded weights move its true answer."""
    if sweep_error(values, truth) > tolerance:
        tolerance = max(tolerance, STEPS * moved_by_rounding(model, truth, ask))
    assert_sweep(values, truth, tolerance)


def normal(*shape: int, seed: int, size: float = 1.0) -> torch.Tensor:
    """Normal numbers of this size, the same for a seed, on torch's default device."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(shape, generator=generator, device="cpu")
    return size * drawn.to(torch.get_default_device())


def integers(low: int, high: int, *shape: int, seed: int) -> torch.Tensor:
    """Whole numbers from low to below high, the same for a seed, on torch's default device."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(low, high, shape, generator=generator, device="cpu")
    return drawn.to(torch.get_default_device())
