"""The difference forms against the reference definitions in float64, at every size of δ."""

from __future__ import annotations

import pytest
import torch
from compare import assert_close

from ioi_fast.kernels import cpu, reference

SIZES = [3.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-5]
# fp32 rounds each operand once (6e-8); sums over a row and the final scale add a few of those.
TOLERANCE = 2e-6


def normal(*shape: int, seed: int, size: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return size * torch.randn(shape, generator=generator)


def check(op: str, *inputs: object, tolerance: float = TOLERANCE) -> None:
    exact = [x.double() if isinstance(x, torch.Tensor) else x for x in inputs]
    truth = getattr(reference, op)(*exact)
    assert_close(getattr(cpu, op)(*inputs), truth, tolerance, what=op)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", [(3, 7, 11), (1, 5), (2, 1, 768)])
def test_layernorm_delta(shape: tuple[int, ...], size: float) -> None:
    x, gain = normal(*shape[-2:], seed=1) * 3 + 0.5, normal(shape[-1], seed=2)
    check("layernorm_delta", x, normal(*shape, seed=3, size=size), gain, 1e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("activation", sorted(reference.ACTIVATIONS))
def test_gelu_delta(activation: str, size: float) -> None:
    pre, delta = normal(5, 1001, seed=4, size=2), normal(3, 5, 1001, seed=5, size=size)
    check("gelu_delta", pre, delta, activation, tolerance=2e-6)


@pytest.mark.parametrize("activation", sorted(reference.ACTIVATIONS))
def test_gelu_delta_far_from_zero(activation: str) -> None:
    """Saturated on either side, crossing from one to the other, and coming back."""
    ends = torch.tensor([-300.0, -30.0, -12.0, -9.0, -5.0, 0.0, 5.0, 9.0, 12.0, 30.0, 300.0])
    pre = ends.repeat_interleave(len(ends))[None]
    delta = (ends.repeat(len(ends)) - pre[0])[None]
    check("gelu_delta", pre, delta, activation, tolerance=1e-6)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("T", [1, 2, 15, 16, 17, 33])
def test_attention_delta(T: int, size: float) -> None:
    shape = (2, T, 3, 8)
    base = [normal(*shape, seed=seed, size=2) for seed in (6, 7, 8)]
    delta = [normal(*shape, seed=seed, size=size) for seed in (9, 10, 11)]
    check("attention_delta", *base, *delta, 8**-0.5, tolerance=5e-6)


def test_attention_delta_from_a_weight_that_underflows() -> None:
    """A key whose base weight is 0 in fp32 takes all of the new attention."""
    q = torch.ones(1, 2, 1, 1)
    k = torch.tensor([0.0, 300.0]).view(1, 2, 1, 1)
    v = torch.tensor([1.0, -1.0]).view(1, 2, 1, 1)
    delta_k = torch.tensor([400.0, 0.0]).view(1, 2, 1, 1)
    zero = torch.zeros_like(q)
    check("attention_delta", q, k, v, zero, delta_k, zero, 1.0)


def test_head_write() -> None:
    check("head_write", normal(7, 3, 5, seed=12), normal(3, 5, 11, seed=13))


@pytest.mark.parametrize("size", SIZES)
def test_readout_delta(size: float) -> None:
    x, gain, direction = normal(5, 13, seed=14), normal(13, seed=15), normal(5, 13, seed=16)
    delta = normal(3, 5, 13, seed=17, size=size)
    check("readout_delta", x, delta, gain, 1e-5, direction, tolerance=5e-6)


def test_subtracting_at_the_end_would_fail() -> None:
    """The tolerance is tight enough to tell the difference forms from a plain subtraction."""
    pre, delta = normal(5, 1001, seed=4, size=2), normal(5, 1001, seed=5, size=1e-5)
    truth = reference.gelu_delta(pre.double(), delta.double(), "gelu_new")
    with pytest.raises(AssertionError):
        plain = reference.gelu_delta(pre, delta, "gelu_new")
        assert_close(plain, truth, TOLERANCE, what="plain subtraction")
