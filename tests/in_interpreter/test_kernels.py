"""Each Triton kernel in the interpreter against the definition in float64, on odd shapes."""

from __future__ import annotations

import pytest
import torch
from compare import assert_close, integers, normal
from device import DEVICE

from ioi_fast.kernels import reference, triton_ops

SIZES = [3.0, 1e-1, 1e-3, 1e-5]


@pytest.fixture(autouse=True)
def on_the_device():
    with torch.device(DEVICE):
        yield


def is_float(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def check(op: str, *inputs: object, tolerance: float = 3e-6) -> None:
    truth = getattr(reference, op)(*[x.double() if is_float(x) else x for x in inputs])
    assert_close(getattr(triton_ops, op)(*inputs), truth, tolerance, what=op)


@pytest.mark.parametrize("size", [1e4, *SIZES])
@pytest.mark.parametrize("shape", [(3, 7, 11), (1, 5), (2, 1, 64), (2, 65), (1, 2, 768)])
def test_layernorm_and_readout_delta(shape: tuple[int, ...], size: float) -> None:
    x, gain = normal(*shape[-2:], seed=1) * 3 + 0.5, normal(shape[-1], seed=2)
    delta = normal(*shape, seed=3, size=size)
    check("layernorm_delta", x, delta, gain, 1e-5)
    check("readout_delta", x, delta, gain, 1e-5, normal(*shape[-2:], seed=4), tolerance=1e-5)


@pytest.mark.parametrize("left", [0.5, 1e-2, 0.0])
def test_layernorm_delta_that_cancels_its_base(left: float) -> None:
    base = (normal(5, 96, seed=2, size=8) * 64).round() / 64
    rest = (normal(3, 5, 96, seed=1) * left * 8 * 4096).round() / 4096
    check("layernorm_delta", base, rest - base, normal(96, seed=3), 1e-5, tolerance=5e-6)


@pytest.mark.parametrize("size", SIZES)
def test_gelu_delta(size: float) -> None:
    pre, delta = normal(5, 301, seed=4, size=2), normal(3, 5, 301, seed=5, size=size)
    check("gelu_delta", pre, delta, "gelu_new")


def test_gelu_delta_far_from_zero() -> None:
    ends = torch.tensor([-300.0, -30.0, -9.0, -5.0, 0.0, 5.0, 9.0, 30.0, 300.0])
    pre = ends.repeat_interleave(len(ends))[None]
    check("gelu_delta", pre, (ends.repeat(len(ends)) - pre[0])[None], "gelu_new")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "T",
    [pytest.param(T, marks=[pytest.mark.slow] * (T in (2, 15))) for T in (1, 2, 15, 16, 17, 33)],
)
def test_attention_delta(T: int, size: float) -> None:
    base = [normal(2, T, 3, 8, seed=seed, size=2) for seed in (6, 7, 8)]
    delta = [normal(2, T, 3, 8, seed=seed, size=size) for seed in (9, 10, 11)]
    check("attention_delta", *base, *delta, 8**-0.5, tolerance=5e-6)


@pytest.mark.parametrize(("T", "K"), [(1, 65), pytest.param(16, 128, marks=pytest.mark.slow)])
def test_attention_delta_of_wide_heads(T: int, K: int) -> None:
    base = [normal(2, n, 2, K, seed=seed, size=2) for n, seed in ((T, 6), (16, 7), (16, 8))]
    delta = [normal(3, 2, n, 2, K, seed=s, size=0.1) for n, s in ((T, 9), (16, 10), (16, 11))]
    at = torch.arange(16)[-T:].expand(2, T)
    check("attention_delta", *base, *delta, K**-0.5, at, tolerance=5e-6)


@pytest.mark.parametrize(
    "size", [3.0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1e-2, 1e-5))]
)
@pytest.mark.parametrize(
    ("T", "S", "C", "K"),
    [
        *((1, 65, 1, 8), (1, 130, 40, 17)),
        pytest.param(70, 70, 5, 5, marks=pytest.mark.slow),
        pytest.param(2, 40, 3, 128, marks=pytest.mark.slow),
        pytest.param(1, 17, 17, 129, marks=pytest.mark.slow),
    ],
)
def test_attention_delta_of_long_prompts_and_wide_heads(
    T: int, S: int, C: int, K: int, size: float, launches: list
) -> None:
    """Keys change here and there, in every block of keys or few; an unused slot holds rubbish."""
    P, N, H = 2, 2, 2
    base = [normal(N, n, H, K, seed=seed, size=2) for n, seed in ((T, 6), (S, 7), (S, 8))]
    delta = [normal(P, N, n, H, K, seed=s, size=size) for n, s in ((T, 9), (C, 10), (C, 11))]
    changed = torch.stack([(7 * torch.arange(C) + first) % S for first in (S - 1, 3)])
    changed[1, C // 2] = -1
    at = torch.stack([torch.arange(S)[-T:], torch.arange(S)[:T]])
    if T == 1:
        at[1] = S // 2
    truth = reference.attention_delta(*[x.double() for x in (*base, *delta)], K**-0.5, at, changed)
    for change in delta[1:]:
        change[:, 1, C // 2] = torch.nan
    got = triton_ops.attention_delta(*base, *delta, K**-0.5, at, changed)
    assert {name for name, _ in launches} == {"attention_delta_long"}
    assert_close(got, truth, 5e-6)


def test_a_table_and_strides_of_long_prompts(launches: list) -> None:
    """Rows that are computed, frozen or taken from a source, in slices of larger tensors."""
    P, N, T, H, K = 3, 1, 66, 2, 6
    base = [normal(N, T, H, 2 * K, seed=seed, size=2)[..., :K] for seed in (1, 2, 3)]
    delta = [normal(P, N, T, 3 * H, K, seed=seed, size=0.1)[..., ::3, :] for seed in (4, 5, 6)]
    codes, sources = integers(-2, 2, P, N, T, H, seed=0), normal(2, N, T, H, K, seed=7)
    codes[1, :, :20] = reference.FROZEN
    asked = (K**-0.5, None, None, codes.char(), sources)
    check("attention_delta", *base, *delta, *asked, tolerance=5e-6)
    frozen = torch.full_like(codes, reference.FROZEN).char()
    launches.clear()
    out = triton_ops.attention_delta(*base, *delta, K**-0.5, None, None, frozen)
    ((name, traffic),) = launches
    assert name == "attention_delta_long" and not out.any()
    assert set(+traffic.loaded) == {"table"} and set(+traffic.stored) == {"out"}


@pytest.mark.parametrize("move", [-30.0, 1.5, 30.0])
def test_long_prompts_whose_smallest_weight_moves_far(move: float) -> None:
    """A weight near 1e-6 that vanishes, grows or takes all, in the first block of keys or last."""
    for key in (0, 69):
        q, k, v = (normal(1, length, 2, 8, seed=length) for length in (2, 70, 71))
        v = v[:, 1:]
        q[..., 0], k[..., 0] = 1.0, 0.0
        k[:, key, :, 0] = -13 * 8**0.5
        delta_k, none = torch.zeros_like(k), torch.zeros_like(k)
        delta_k[:, key, :, 0] = move * 8**0.5
        where = (8**-0.5, torch.tensor([[69, 69]]))
        check("attention_delta", q, k, v, none[:, :2], delta_k, none, *where, tolerance=5e-6)


@pytest.mark.parametrize("far", [pytest.param(13.0, marks=pytest.mark.slow), 28.0])
@pytest.mark.parametrize(
    ("T", "S"), [(1, 17), (2, 17), (1, 70), pytest.param(2, 70, marks=pytest.mark.slow)]
)
def test_attention_delta_of_a_head_that_looks_at_one_token(T: int, S: int, far: float) -> None:
    """The weight near 1 loses as little as all others gain: no difference of two numbers near 1.

    All scores move alike beside that, which changes no weight; also where the token's own value
    changes.
    """
    q, k, v = (normal(2, n, 3, 8, seed=seed) for n, seed in ((T, 1), (S, 2), (S, 3)))
    token = S - 3
    q[..., :2], k[..., :2] = 1.0, 0.0
    k[:, token, :, 0] = far * 8**0.5
    k *= torch.tensor([1.0, 1.0, *[0.1] * 6])
    delta_q, delta_k = torch.zeros(2, T, 3, 8), normal(2, S, 3, 8, seed=5, size=3)
    k[..., 1], delta_q[..., 1] = 1.7 * 8**0.5, 1.0
    delta_k[..., :2], delta_k[:, token] = 0.0, 0.0
    where = (8**-0.5, torch.full((2, T), S - 1))
    for size_of_value in (0.0, 1e-7):
        delta_v = torch.zeros(2, S, 3, 8)
        delta_v[:, token] = size_of_value
        check("attention_delta", q, k, v, delta_q, delta_k, delta_v, *where, tolerance=1e-5)


@pytest.mark.parametrize("T", [1, 2])
@pytest.mark.parametrize("move", [-30.0, -5.0, 1.5, 4.0])
def test_attention_delta_of_weights_that_stay_while_a_small_one_moves_far(
    move: float, T: int
) -> None:
    """A weight near 1e-6 that vanishes or grows takes as little from the others, and as exactly."""
    q, k, v = (normal(2, length, 3, 8, seed=length) for length in (T, 6, 6))
    q[..., 0], k[..., 0], k[:, 0] = 1.0, 0.0, 0.0
    k[:, 0, :, 0] = -13 * 8**0.5
    delta_k, none = torch.zeros_like(k), torch.zeros_like(k)
    delta_k[:, 0, :, 0] = move * 8**0.5
    where = (8**-0.5, torch.tensor([[5, 4]] * 2)[:, :T])
    check("attention_delta", q, k, v, none[:, :T], delta_k, none, *where, tolerance=5e-6)


def test_attention_delta_of_weights_that_all_move_far() -> None:
    """Many keys of like weights, one of which takes most: all are new, and as exact as that."""
    shape = (2, 60, 3, 4)
    q, k, v = (normal(*shape, seed=seed, size=size) for seed, size in enumerate((1e-3, 2, 1)))
    delta_q, none = normal(4, *shape, seed=3, size=3), torch.zeros(4, *shape)
    check("attention_delta", q, k, v, delta_q, none, none, 1.0, tolerance=3e-6)


@pytest.mark.parametrize(
    "P", [1, pytest.param(16, marks=pytest.mark.slow), 17, pytest.param(40, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("C", [1, 3])
@pytest.mark.parametrize("T", [1, 2])
def test_attention_delta_of_variants_with_private_keys(T: int, C: int, P: int) -> None:
    """Variants share base keys and change some positions; an unused slot holds rubbish."""
    N, S, H, K = 2, 7, 2, 8
    base = [normal(N, length, H, K, seed=seed, size=2) for length, seed in ((T, 1), (S, 2), (S, 3))]
    changed = torch.tensor([[6, 2, 4], [5, 1, -1]])[:, :C]
    at = torch.tensor([[6, 3], [5, 2]])[:, :T]
    delta = [normal(P, N, n, H, K, seed=s, size=0.1) for n, s in ((T, 4), (C, 5), (C, 6))]
    truth = reference.attention_delta(*[x.double() for x in (*base, *delta)], 8**-0.5, at, changed)
    for change in delta[1:]:
        change[:, 1, 2:] = torch.nan  # the unused slot
    got = triton_ops.attention_delta(*base, *delta, 8**-0.5, at, changed)
    assert_close(got, truth, 5e-6)


@pytest.mark.parametrize("size", [3.0, pytest.param(1e-2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("K", [pytest.param(1, marks=pytest.mark.slow), 16, 24])
@pytest.mark.parametrize("T", [1, 15, pytest.param(33, marks=pytest.mark.slow)])
def test_attention_delta_by_a_table(T: int, K: int, size: float) -> None:
    """Rows and heads that are computed, frozen, or taken from one of two sources."""
    P, N, H = 4, 2, 3
    base = [normal(N, T, H, K, seed=seed, size=2) for seed in (1, 2, 3)]
    delta = [normal(P, N, T, H, K, seed=seed, size=size) for seed in (4, 5, 6)]
    codes = integers(-2, 2, P, N, T, H, seed=0)
    codes[0], codes[1] = reference.LIVE, reference.FROZEN
    codes[2, :, :, 1] = 1
    sources = normal(2, N, T, H, K, seed=7)
    where = (K**-0.5, None, None)
    for table in (codes.char(), codes[3:].char(), codes.short()):
        check("attention_delta", *base, *delta, *where, table, sources, tolerance=5e-6)


@pytest.mark.parametrize("T", [1, 5])
def test_strided_inputs(T: int) -> None:
    """Slices of larger tensors whose gaps are NaN, as the engine hands them on."""
    P, N, H, K = 3, 2, 2, 8

    def inside(*shape: int, seed: int) -> torch.Tensor:
        whole = torch.full((*shape[:-2], shape[-2] + 2, 2 * shape[-1]), torch.nan)
        part = whole[..., 1:-1, : shape[-1]]
        return part.copy_(normal(*shape, seed=seed))

    base = [inside(N, T, H, K, seed=seed) for seed in (1, 2, 3)]
    delta = [inside(P, N, T, H, K, seed=seed) for seed in (4, 5, 6)]
    check("attention_delta", *base, *delta, 0.3, tolerance=5e-6)


@pytest.mark.parametrize(("C", "D"), [(1, 5), (7, 11), (17, 70)])
def test_head_write(C: int, D: int) -> None:
    """Variants that hold one head, several or none, and a head that several variants hold."""
    rows, heads = torch.tensor([0, 3, 1, 3, 3]), torch.tensor([2, 0, 0, 2, 1])
    delta = normal(5, C, D, seed=11)
    inputs = (rows, normal(C, 3, 5, seed=12), heads, normal(3, 5, D, seed=13))
    truth = reference.head_write(
        delta.double(), *[x.double() if is_float(x) else x for x in inputs]
    )
    out = triton_ops.head_write(delta.clone(), *inputs)
    assert_close(out, truth, 3e-6)
    assert torch.equal(out[[2, 4]], delta[[2, 4]])


@pytest.mark.parametrize(("P", "N"), [(1, 1), (1, 5), (3, 5), (70, 1), (17, 5), (2, 70)])
def test_mlp_in_delta(P: int, N: int) -> None:
    """Variants of base rows, in tiles of every shape, and rows that name their base."""
    R = P * N
    pre, rows, weight = (
        normal(N, 70, seed=2),
        normal(R, 33, seed=3),
        normal(33, 70, seed=1, size=0.2),
    )
    for index in (None, torch.arange(R).flip(0) % N):
        own = pre[torch.arange(R) % N if index is None else index].double()
        truth = reference.gelu_delta(own, rows.double() @ weight.double(), "gelu_new")
        assert_close(triton_ops.mlp_in_delta(pre, rows, weight, index), truth, 5e-6)
        rounded = triton_ops.mlp_in_delta(pre, rows, weight, index, "rounded")
        assert_close(rounded, truth, 6e-3)
        assert not torch.allclose(rounded.double(), truth, rtol=1e-5)


def test_rounding_to_bf16_is_to_nearest_even() -> None:
    """Half-way values, which bf16 can't hold, in products with an identity."""
    steps = torch.arange(-64, 64)
    rows = ((1 + (2 * steps + 1) / 256).float()).view(8, 16)
    pre, weight = torch.zeros(8, 16), torch.eye(16)
    got = triton_ops.mlp_in_delta(pre, rows, weight, precision="rounded")
    truth = reference.gelu_delta(pre.double(), rows.bfloat16().double(), "gelu_new")
    assert_close(got, truth, 1e-6)


def in_fp16(op: str, *inputs: object) -> None:
    """Rows in fp16, in and out, against the definition on the same numbers."""
    halved = [x.half() if is_float(x) else x for x in inputs]
    truth = getattr(reference, op)(*[x.double() if is_float(x) else x for x in halved])
    got = getattr(triton_ops, op)(*halved)
    assert got.dtype == (torch.float32 if op == "readout_delta" else torch.float16)
    assert_close(got, truth, 1e-3, what=op)


@pytest.mark.parametrize("T", [1, 16, 17, pytest.param(66, marks=pytest.mark.slow)])
def test_attention_in_fp16(T: int) -> None:
    P, N, H, K = 3, 2, 2, 8
    base = [normal(N, T, H, K, seed=seed) for seed in (1, 2, 3)]
    delta = [normal(P, N, T, H, K, seed=seed, size=0.3) for seed in (4, 5, 6)]
    codes = integers(-2, 1, P, N, T, H, seed=0)
    in_fp16("attention_delta", *base, *delta, K**-0.5, None, None, codes.clamp(max=-1).char())
    sources = normal(1, N, T, H, K, seed=7)
    in_fp16("attention_delta", *base, *delta, K**-0.5, None, None, codes.char(), sources)


def test_rows_in_fp16() -> None:
    x, delta, gain = normal(5, 96, seed=1), normal(3, 5, 96, seed=2, size=0.3), normal(96, seed=3)
    in_fp16("layernorm_delta", x, delta, gain, 1e-5)
    in_fp16("readout_delta", x, delta, gain, 1e-5, normal(5, 96, seed=4))
    in_fp16("gelu_delta", x, delta, "gelu_new")
    rows, heads = torch.tensor([0, 2, 2]), torch.tensor([1, 0, 1])
    in_fp16("head_write", delta, rows, normal(5, 2, 8, seed=5), heads, normal(2, 8, 96, seed=6))


def test_mlp_in_delta_in_fp16() -> None:
    pre, rows, weight = normal(5, 70, seed=2), normal(15, 33, seed=3), normal(33, 70, seed=1)
    halved = [t.half() for t in (pre, rows, 0.2 * weight)]
    own, left, right = (t.double() for t in halved)
    truth = reference.gelu_delta(own.repeat(3, 1), left @ right, "gelu_new")
    got = triton_ops.mlp_in_delta(*halved)
    assert got.dtype == torch.float16
    assert_close(got, truth, 1e-3)
