"""The same launch again and again gives the same bits: a race between programs would show."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from compare import normal
from device import DEVICE, ON_GPU

from ioi_fast.kernels import triton_ops

# What a race does is seen on a GPU.
pytestmark = [] if ON_GPU else pytest.mark.slow
REPEATS = 1000 if ON_GPU else 2
Launched = Callable[[], torch.Tensor]


@pytest.fixture(autouse=True)
def on_the_device():
    with torch.device(DEVICE):
        yield


def attention(T: int, more_keys: int = 0) -> Launched:
    P, N, S, H, K = (36, 4, 16, 3, 64) if ON_GPU else (3, 1, 6, 2, 8)
    S += more_keys
    base = [normal(N, n, H, K, seed=seed) for n, seed in ((min(T, S), 1), (S, 2), (S, 3))]
    delta = [normal(P, N, n, H, K, seed=s) for n, s in ((min(T, S), 4), (S, 5), (S, 6))]
    at = torch.arange(S)[-min(T, S) :].expand(N, -1)
    return partial(triton_ops.attention_delta, *base, *delta, K**-0.5, at)


def head_write() -> Launched:
    """Several heads of a variant, which add to one place in order."""
    C, D = (64, 768) if ON_GPU else (5, 40)
    rows, heads = torch.tensor([0, 2, 1, 2, 2, 0]), torch.tensor([0, 1, 2, 2, 0, 1])
    given = (rows, normal(C, 3, 16, seed=1), heads, normal(3, 16, D, seed=2))
    delta = normal(4, C, D, seed=3)
    return lambda: triton_ops.head_write(delta.clone(), *given)


def mlp_in() -> Launched:
    P, N, D, F = (36, 16, 768, 3072) if ON_GPU else (3, 5, 33, 70)
    pre, rows, weight = normal(N, F, seed=1), normal(P * N, D, seed=2), normal(D, F, seed=3)
    return partial(triton_ops.mlp_in_delta, pre, rows, weight)


def rows() -> Launched:
    x, delta = normal(16, 768, seed=1), normal(9, 16, 768, seed=2, size=0.1)
    gain, direction = normal(768, seed=3), normal(16, 768, seed=4)

    def run() -> torch.Tensor:
        normed = triton_ops.layernorm_delta(x, delta, gain, 1e-5)
        read = triton_ops.readout_delta(x, delta, gain, 1e-5, direction)
        return torch.cat([normed.flatten(), read.flatten()])

    return run


CASES = {
    "one query": partial(attention, 1),
    "queries": partial(attention, 16),
    "many keys": partial(attention, 3, 64),
    "head_write": head_write,
    "mlp_in": mlp_in,
    "rows": rows,
}


@pytest.mark.parametrize("make", CASES.values(), ids=CASES)
def test_the_same_bits(make: Callable[[], Launched]) -> None:
    run = make()
    first = run().clone()
    assert not bool(first.isnan().any())
    for _ in range(REPEATS - 1):
        assert torch.equal(run(), first)
