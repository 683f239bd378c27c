"""The watch over addresses catches what it should, and counts what kernels ask for."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl
from compare import normal
from guarded_memory import BAND, Banded, OutOfBounds, guarded

from ioi_fast.kernels import reference, triton_ops


@triton.jit
def copy_kernel(source, out, size, SHIFT: tl.constexpr, MASKED: tl.constexpr):
    place = tl.arange(0, 16)
    mask = (place < size) if MASKED else (place < 16)
    tl.store(out + place, tl.load(source + place + SHIFT, mask=mask, other=0.0), mask=mask)


def copy(shift: int, masked: bool) -> object:
    source, out = torch.arange(12.0), torch.zeros(12)
    with guarded(source=source, out=out) as traffic:
        copy_kernel[(1,)](source, out, 12, SHIFT=shift, MASKED=masked)
    assert torch.equal(source, out)
    return traffic


def test_bytes_of_a_copy() -> None:
    traffic = copy(shift=0, masked=True)
    assert +traffic.loaded == {"source": 48} and +traffic.stored == {"out": 48}


@pytest.mark.parametrize(("shift", "masked"), [(1, True), (-1, True), (0, False)])
def test_a_lane_outside_is_caught(shift: int, masked: bool) -> None:
    with pytest.raises(Exception, match=r"OutOfBounds|lanes in no tensor") as caught:
        copy(shift, masked)
    causes, error = [], caught.value
    while error is not None:
        causes.append(type(error))
        error = error.__cause__
    assert OutOfBounds in causes


def attention(table: torch.Tensor, launches: list, T: int) -> object:
    P, N, H, K = table.shape[0], 1, table.shape[-1], 16
    base = [normal(N, T, H, K, seed=seed) for seed in (1, 2, 3)]
    delta = [normal(P, N, T, H, K, seed=seed) for seed in (4, 5, 6)]
    launches.clear()
    triton_ops.attention_delta(*base, *delta, 0.25, None, None, table)
    ((_, traffic),) = launches
    return traffic


@pytest.mark.parametrize("T", [1, 16])
def test_frozen_heads_move_nothing_but_the_table_and_their_zeros(T: int, launches: list) -> None:
    frozen = torch.full((4, 1, T, 4), reference.FROZEN, dtype=torch.int8)
    traffic = attention(frozen, launches, T)
    assert set(+traffic.loaded) == {"table"} and set(+traffic.stored) == {"out"}
    one = frozen.clone()
    one[..., 2] = reference.LIVE
    quarter, whole = attention(one, launches, T), attention(one * 0 - 1, launches, T)
    for name in ("q", "k", "v", "delta_q", "delta_k", "delta_v"):
        assert 4 * quarter.loaded[name] == whole.loaded[name] > 0, name


@pytest.mark.parametrize("T", [1, pytest.param(16, marks=pytest.mark.slow)])
@pytest.mark.parametrize("C", [1, pytest.param(16, marks=pytest.mark.slow)])
def test_attention_asks_for_little_more_than_it_must(T: int, C: int, launches: list) -> None:
    """GPT-2 small's heads, 16 tokens, many variants: every tensor once is the least."""
    P, N, S, H, K = 144, 1, 16, 2, 64
    base = [normal(N, rows, H, K, seed=rows) for rows in (T, S, S)]
    delta = [normal(P, N, rows, H, K, seed=rows) for rows in (T, C, C)]
    at, changed = (torch.arange(S)[-rows:].expand(N, rows) for rows in (T, C))
    launches.clear()
    triton_ops.attention_delta(*base, *delta, 0.125, at, changed)
    ((_, traffic),) = launches
    asked = sum(traffic.loaded.values()) + sum(traffic.stored.values())
    least = sum(t.numel() * t.element_size() for t in (*base, *delta, at, changed, delta[0]))
    assert least < asked <= 1.15 * least, f"{asked / least:.3f}"


@pytest.mark.parametrize(
    ("P", "N"), [(144, 1), (64, 4), pytest.param(144, 16, marks=pytest.mark.slow)]
)
def test_variants_of_an_mlp_share_what_the_base_has(P: int, N: int, launches: list) -> None:
    """After the product: the base's hidden rows once, and every hidden row that comes out."""
    pre, rows, weight = normal(N, 64, seed=1), normal(P * N, 16, seed=2), normal(16, 64, seed=3)
    launches.clear()
    triton_ops.mlp_in_delta(pre, rows, weight)
    ((_, traffic),) = launches
    asked, least = traffic.loaded["pre"] + traffic.stored["out"], 4 * 64 * (N + P * N)
    assert least <= asked <= 1.15 * least, f"{asked / least:.3f}"


def test_operands_of_an_mlp_follow_the_tiles(launches: list) -> None:
    """Each tile of 64 rows by 64 columns reads all of its rows and of its columns."""
    P, N, D, F = 32, 4, 48, 128
    pre, rows, weight = normal(N, F, seed=1), normal(P * N, D, seed=2), normal(D, F, seed=3)
    launches.clear()
    triton_ops.mlp_in_delta(pre, rows, weight)
    ((_, traffic),) = launches
    assert traffic.loaded["rows"] == 4 * P * N * D * (F // 64)
    assert traffic.loaded["weight"] == 4 * D * F * (P * N // 64)


def test_a_write_beside_a_tensor_is_seen() -> None:
    rows = normal(3, 8, seed=1)[:, ::2].expand(2, 3, 4)
    banded = Banded(rows)
    assert torch.equal(banded.inner, rows) and banded.inner.stride() == rows.stride()
    banded.check("rows")
    banded.whole[BAND - 1] = 0
    with pytest.raises(OutOfBounds, match="rows: written beside"):
        banded.check("rows")
