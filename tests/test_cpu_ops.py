"""The difference forms, in C++ and in torch, against the definitions in float64."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from compare import assert_close, normal

from ioi_fast.calls.surroundings import surroundings
from ioi_fast.kernels import cpu_ops, reference
from ioi_fast.kernels.build import load_kernels

SIZES = [3.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-5]
LARGE = [1e2, 1e4, 1e6, 1e8]
# fp32 rounds each operand once (6e-8); sums over a row and the final scale add a few of those.
TOLERANCE = 2e-6


def is_float(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def check(form: ModuleType, op: str, *inputs: object, tolerance: float = TOLERANCE) -> None:
    exact = [x.double() if is_float(x) else x for x in inputs]
    truth = getattr(reference, op)(*exact)
    assert_close(getattr(form, op)(*inputs), truth, tolerance, what=op)


@pytest.mark.parametrize("size", LARGE + SIZES)
@pytest.mark.parametrize("shape", [(3, 7, 11), (1, 5), (2, 1, 768)])
def test_layernorm_delta(shape: tuple[int, ...], size: float, form: ModuleType) -> None:
    x, gain = normal(*shape[-2:], seed=1) * 3 + 0.5, normal(shape[-1], seed=2)
    check(form, "layernorm_delta", x, normal(*shape, seed=3, size=size), gain, 1e-5)


@pytest.mark.parametrize("size", [1.0, 1e3, 1e6])
def test_layernorm_delta_of_a_base_that_hardly_varies(size: float, form: ModuleType) -> None:
    """Its variance is 0, so that ε alone decides how large its norm is."""
    delta = normal(3, 4, 96, seed=1, size=size)
    check(form, "layernorm_delta", torch.full((4, 96), 3.0), delta, normal(96, seed=2), 1e-5)


@pytest.mark.parametrize("left", [0.5, 1e-1, 1e-2, 1e-4, 0.0])
def test_layernorm_delta_that_cancels_its_base(left: float, form: ModuleType) -> None:
    """What stays of a large base is small, down to nothing: the new variance is not 1 + u."""
    small, base = normal(3, 5, 96, seed=1), normal(5, 96, seed=2, size=8)
    # The sum is exact in fp32, so that the truth is that of the inputs and not of their rounding.
    base = (base * 64).round() / 64
    rest = (small * left * 8 * 4096).round() / 4096
    check(form, "layernorm_delta", base, rest - base, normal(96, seed=3), 1e-5, tolerance=5e-6)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("activation", sorted(reference.ACTIVATIONS))
def test_gelu_delta(activation: str, size: float, form: ModuleType) -> None:
    pre, delta = normal(5, 1001, seed=4, size=2), normal(3, 5, 1001, seed=5, size=size)
    check(form, "gelu_delta", pre, delta, activation, tolerance=2e-6)


@pytest.mark.parametrize("activation", sorted(reference.ACTIVATIONS))
def test_gelu_delta_far_from_zero(activation: str, form: ModuleType) -> None:
    """Saturated on either side, crossing from one to the other, and coming back."""
    ends = torch.tensor([-300.0, -30.0, -12.0, -9.0, -5.0, 0.0, 5.0, 9.0, 12.0, 30.0, 300.0])
    pre = ends.repeat_interleave(len(ends))[None]
    delta = (ends.repeat(len(ends)) - pre[0])[None]
    check(form, "gelu_delta", pre, delta, activation, tolerance=1e-6)


@pytest.mark.parametrize("size", [1e4, 30.0, 1.0, 1e-2, 1e-8])
@pytest.mark.parametrize("activation", sorted(reference.ACTIVATIONS))
def test_every_change_is_as_exact_as_it_is_large(
    activation: str, size: float, form: ModuleType
) -> None:
    """Value by value, not only beside the largest: 1e-6 of the change of the input."""
    pre, delta = normal(1, 100_000, seed=1, size=3), normal(1, 100_000, seed=2, size=size)
    exact, points = pre.double(), torch.linspace(0, 1, 65, dtype=torch.float64)
    if size < 1:  # the definition subtracts: Simpson's rule on the derivative does not
        weights = torch.tensor([1.0] + [4.0, 2.0] * 31 + [4.0, 1.0], dtype=torch.float64) / 192
        truth = torch.zeros_like(exact)
        for point, weight in zip(points, weights, strict=True):
            at = (exact + point * delta.double()).requires_grad_()
            slope = torch.autograd.grad(reference.ACTIVATIONS[activation](at).sum(), at)[0]
            truth += weight * slope * delta
    else:
        truth = reference.gelu_delta(exact, delta.double(), activation)
    error = (form.gelu_delta(pre, delta.clone(), activation) - truth).abs() / delta.abs()
    if activation == "relu" and size < 1:
        error = error[(pre.sign() == (pre + delta).sign())]  # no corner for Simpson
    assert error.max() < 1e-6, f"{error.max():.1e} of delta"


@pytest.mark.parametrize("K", [1, 7, 16, 100])
@pytest.mark.parametrize("T", [1, 2, 15, 16, 17, 33])
def test_attention(T: int, K: int, form: ModuleType) -> None:
    """Slices of one product, as a run has them; what a query can't see may be anything."""
    rows = normal(2, T, 3, 3 * K, seed=1, size=2)
    q, k, v = (part.unflatten(-1, (3, K)) for part in rows.flatten(2).chunk(3, -1))
    k[0, -1], v[0, -1] = 1e30, 1e30
    pattern = reference.attention_pattern(q.double(), k.double(), 0.3)
    truth = reference.attention_mix(pattern, v.double())
    got = form.attention(q, k, v, 0.3)
    assert_close(got[1], truth[1], 3e-6)
    if T > 1:
        assert_close(got[0, :-1], truth[0, :-1], 3e-6)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("T", [1, 2, 15, 16, 17, 33])
def test_attention_delta(T: int, size: float, form: ModuleType) -> None:
    shape = (2, T, 3, 8)
    base = [normal(*shape, seed=seed, size=2) for seed in (6, 7, 8)]
    delta = [normal(*shape, seed=seed, size=size) for seed in (9, 10, 11)]
    check(form, "attention_delta", *base, *delta, 8**-0.5, tolerance=5e-6)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("C", [1, 3])
@pytest.mark.parametrize("T", [1, 2])
def test_attention_delta_of_variants_with_private_keys(
    T: int, C: int, size: float, form: ModuleType
) -> None:
    """Variants share base keys and change some positions; an unused slot holds rubbish."""
    P, N, S, H, K = 5, 2, 7, 3, 8
    base = [normal(N, length, H, K, seed=seed, size=2) for length, seed in ((T, 1), (S, 2), (S, 3))]
    changed = torch.tensor([[6, 2, 4], [5, 1, -1]])[:, :C]
    at = torch.tensor([[6, 3], [5, 2]])[:, :T]
    delta = [normal(P, N, n, H, K, seed=s, size=size) for n, s in ((T, 4), (C, 5), (C, 6))]
    check(form, "attention_delta", *base, *delta, 8**-0.5, at, changed, tolerance=5e-6)


@pytest.mark.parametrize("size", [3.0, 1e-1, 1e-4])
def test_attention_delta_of_a_head_that_looks_at_one_token(size: float, form: ModuleType) -> None:
    """One weight is 1 − 1e-4 before and after: the change is exact although it is that small."""
    shape = (2, 6, 3, 8)
    q, k, v = (normal(*shape, seed=seed) for seed in (6, 7, 8))
    q[..., 0], k[..., 0] = 1.0, 0.0
    k[:, 0, :, 0] = 13 * 8**0.5
    delta = [normal(*shape, seed=seed, size=size) for seed in (9, 10)]
    for change in delta:
        change[..., 0] = 0
    none = torch.zeros(shape)
    check(form, "attention_delta", q, k, v, *delta, none, 8**-0.5, tolerance=1e-5)


@pytest.mark.parametrize("move", [-30.0, -5.0, -1.5, 1.5, 4.0])
def test_attention_delta_of_weights_that_stay_while_a_small_one_moves_far(
    move: float, form: ModuleType
) -> None:
    """A weight near 1e-6 that vanishes or grows takes as little from the others, and as exactly."""
    shape = (2, 6, 3, 8)
    q, k, v = (normal(*shape, seed=seed) for seed in (1, 2, 3))
    q[..., 0], k[..., 0], k[:, 0] = 1.0, 0.0, 0.0
    k[:, 0, :, 0] = -13 * 8**0.5
    delta_k, none = torch.zeros(shape), torch.zeros(shape)
    delta_k[:, 0, :, 0] = move * 8**0.5
    assert reference.attention_delta(q, k, v, none, delta_k, none, 8**-0.5).abs().max() < 1e-2
    where = (8**-0.5, torch.tensor([[1, 2, 3, 4, 4, 5]] * 2))
    check(form, "attention_delta", q, k, v, none, delta_k, none, *where, tolerance=5e-6)


@pytest.mark.parametrize("seed", [0, 10, 20, 30])
def test_attention_delta_of_weights_that_all_move_far(seed: int, form: ModuleType) -> None:
    """Many keys of like weights, one of which takes most: all are new, and as exact as that."""
    shape = (2, 60, 3, 4)
    q, k, v = (normal(*shape, seed=seed + i, size=size) for i, size in enumerate((1e-3, 2, 1)))
    delta_q, none = normal(4, *shape, seed=seed + 3, size=3), torch.zeros(4, *shape)
    check(form, "attention_delta", q, k, v, delta_q, none, none, 1.0, tolerance=3e-6)


def test_attention_delta_from_a_weight_that_underflows(form: ModuleType) -> None:
    """A key whose base weight is 0 in fp32 takes all of the new attention."""
    q = torch.ones(1, 2, 1, 1)
    k = torch.tensor([0.0, 300.0]).view(1, 2, 1, 1)
    v = torch.tensor([1.0, -1.0]).view(1, 2, 1, 1)
    delta_k = torch.tensor([400.0, 0.0]).view(1, 2, 1, 1)
    zero = torch.zeros_like(q)
    check(form, "attention_delta", q, k, v, zero, delta_k, zero, 1.0)


@pytest.mark.parametrize(("C", "D"), [(1, 5), (7, 11), (16, 64), (5, 200)])
def test_head_write(C: int, D: int, form: ModuleType) -> None:
    """Variants that hold one head, several or none, and a head that several variants hold."""
    rows, heads = torch.tensor([0, 3, 1, 3, 3]), torch.tensor([2, 0, 0, 2, 1])
    delta = normal(5, C, D, seed=11)
    inputs = (rows, normal(C, 3, 5, seed=12), heads, normal(3, 5, D, seed=13))
    exact = [x.double() if is_float(x) else x for x in inputs]
    truth = reference.head_write(delta.double(), *exact)
    out = form.head_write(delta.clone(), *inputs)
    assert_close(out, truth, TOLERANCE, what="head_write")
    assert torch.equal(out[[2, 4]], delta[[2, 4]])


@pytest.mark.parametrize("size", [3.0, 1e-2])
@pytest.mark.parametrize("K", [1, 8, 16, 24])
@pytest.mark.parametrize("T", [1, 15, 17, 33, 70])
def test_attention_delta_by_a_table(T: int, K: int, size: float, form: ModuleType) -> None:
    """Rows and heads that are computed, frozen, or taken from one of two sources."""
    P, N, H = 4, 2, 3
    base = [normal(N, T, H, K, seed=seed, size=2) for seed in (1, 2, 3)]
    delta = [normal(P, N, T, H, K, seed=seed, size=size) for seed in (4, 5, 6)]
    codes = torch.randint(-2, 2, (P, N, T, H), generator=torch.Generator().manual_seed(0))
    codes[0], codes[1] = reference.LIVE, reference.FROZEN
    codes[2, :, :, 1] = 1
    sources = normal(2, N, T, H, K, seed=7)
    where = (K**-0.5, None, None)
    check(form, "attention_delta", *base, *delta, *where, codes.char(), sources, tolerance=5e-6)
    shared = codes[3:].char()
    check(form, "attention_delta", *base, *delta, *where, shared, sources, tolerance=5e-6)
    one = [change[0] for change in delta]
    check(form, "attention_delta", *base, *one, *where, shared[0], sources, tolerance=5e-6)


def test_what_a_table_freezes_is_not_read(form: ModuleType) -> None:
    """NaN in what belongs to frozen heads reaches nothing."""
    P, N, T, H, K = 2, 1, 5, 3, 8
    base = [normal(N, T, H, K, seed=seed) for seed in (1, 2, 3)]
    delta = [normal(P, N, T, H, K, seed=seed) for seed in (4, 5, 6)]
    table = torch.full((P, N, T, H), reference.LIVE).char()
    table[:, :, :, 1] = reference.FROZEN
    expected = form.attention_delta(*base, *delta, 0.3, None, None, table)
    if form is cpu_ops:
        for tensor in (*base, *delta):
            tensor[..., 1, :] = torch.nan
    assert torch.equal(form.attention_delta(*base, *delta, 0.3, None, None, table), expected)
    assert not expected[:, :, :, 1].any() and expected[:, :, :, [0, 2]].ne(0).all()


def test_a_table_that_does_not_fit_is_refused() -> None:
    load_kernels()
    rows = torch.zeros(1, 2, 1, 4)
    given = (rows, rows, rows, rows, rows, rows, 1.0)
    for wrong, what in [
        (torch.zeros(1, 2, 1), "table must be int8"),
        (torch.zeros(1, 2, 1).char(), "table must be from -2 to -1"),
        (torch.full((1, 2, 1), -3).char(), "table must be from -2 to -1"),
        (torch.full((1, 3, 1), -1).char(), "expanded size"),
    ]:
        with pytest.raises(RuntimeError, match=what):
            cpu_ops.attention_delta(*given, None, None, wrong)
    with pytest.raises(RuntimeError, match="at must be from 0 to 1"):
        cpu_ops.attention_delta(*given, torch.tensor([[0, 2]]))
    with pytest.raises(RuntimeError, match="changed must be from -1 to 1"):
        cpu_ops.attention_delta(*given, None, torch.tensor([[0, 2]]))
    with pytest.raises(RuntimeError, match="delta_k and delta_v must be float32"):
        cpu_ops.attention_delta(*given[:5], rows[:, :1], 1.0)


@pytest.mark.parametrize("op", ["rows", "heads"])
def test_places_of_a_head_write_are_checked(op: str) -> None:
    load_kernels()
    places = {"rows": torch.tensor([0]), "heads": torch.tensor([0])}
    places[op] = torch.tensor([2])
    weights = (torch.zeros(3, 2, 4), places["heads"], torch.zeros(2, 4, 5))
    with pytest.raises(RuntimeError, match=f"{op} must be from 0 to 1"):
        cpu_ops.head_write(torch.zeros(2, 3, 5), places["rows"], *weights)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_do_not_change_a_bit_of_attention(threads: int) -> None:
    load_kernels()
    base = [normal(3, 70, 2, 16, seed=seed) for seed in (1, 2, 3)]
    delta = [normal(40, 3, 70, 2, 16, seed=seed) for seed in (4, 5, 6)]
    expected = cpu_ops.attention_delta(*base, *delta, 0.25)
    with surroundings(threads):
        assert torch.equal(cpu_ops.attention_delta(*base, *delta, 0.25), expected)


@pytest.mark.parametrize(("N", "T", "H", "K"), [(4, 9, 3, 8), (1, 31, 1, 33), (1, 17, 1, 128)])
def test_threads_do_not_change_a_bit_of_a_runs_attention(N: int, T: int, H: int, K: int) -> None:
    """Shapes for which torch's own kernel gives other bits with more threads."""
    load_kernels()
    rows = [normal(N, T, H, K, seed=seed) for seed in (1, 2, 3)]
    found = []
    for threads in (1, 2, 3):
        with surroundings(threads):
            found.append(cpu_ops.attention(*rows, 0.25))
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@pytest.mark.parametrize("size", LARGE + SIZES)
def test_readout_delta(size: float, form: ModuleType) -> None:
    x, gain, direction = normal(5, 13, seed=14), normal(13, seed=15), normal(5, 13, seed=16)
    delta = normal(3, 5, 13, seed=17, size=size)
    check(form, "readout_delta", x, delta, gain, 1e-5, direction, tolerance=5e-6)


@pytest.mark.parametrize("left", [0.5, 1e-1, 1e-2, 1e-4, 0.0])
def test_readout_delta_that_cancels_its_base(left: float, form: ModuleType) -> None:
    base = (normal(5, 96, seed=2, size=8) * 64).round() / 64
    rest = (normal(3, 5, 96, seed=1) * left * 8 * 4096).round() / 4096
    gain, direction = normal(96, seed=3), normal(5, 96, seed=4)
    check(form, "readout_delta", base, rest - base, gain, 1e-5, direction, tolerance=5e-6)


def test_subtracting_at_the_end_would_fail() -> None:
    """The tolerance is tight enough to tell the difference forms from a plain subtraction."""
    pre, delta = normal(5, 1001, seed=4, size=2), normal(5, 1001, seed=5, size=1e-5)
    truth = reference.gelu_delta(pre.double(), delta.double(), "gelu_new")
    with pytest.raises(AssertionError):
        plain = reference.gelu_delta(pre, delta, "gelu_new")
        assert_close(plain, truth, TOLERANCE, what="plain subtraction")


def test_nan_is_not_lost(form: ModuleType) -> None:
    pre, delta = normal(2, 40, seed=1), normal(2, 40, seed=2)
    delta[1, 7] = torch.nan
    broken = pre.clone()
    broken[0, 3] = torch.nan
    for activation in reference.ACTIVATIONS:
        out = form.gelu_delta(broken, delta.clone(), activation)
        assert out.isnan().nonzero().tolist() == [[0, 3], [1, 7]], activation
    out = form.layernorm_delta(pre, delta, torch.ones(40), 1e-5)
    assert out[1].isnan().all() and not out[0].isnan().any()


def test_no_change_is_exactly_none(form: ModuleType) -> None:
    pre, none = normal(3, 300, seed=1, size=5), torch.zeros(2, 3, 300)
    for activation in reference.ACTIVATIONS:
        assert not form.gelu_delta(pre, none.clone(), activation).any(), activation
    assert not form.layernorm_delta(pre, none, torch.ones(300), 1e-5).any()


def test_strided_and_empty_inputs(form: ModuleType) -> None:
    pre, delta = normal(600, 5, seed=3).T, normal(5, 600, 3, seed=4).movedim(2, 0)
    assert not pre.is_contiguous() and not delta.is_contiguous()
    check(form, "gelu_delta", pre, delta, "gelu_new")
    check(form, "layernorm_delta", pre, delta, normal(600, seed=5), 1e-5)
    assert form.gelu_delta(pre, delta[:0], "gelu_new").shape == (0, 5, 600)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_do_not_change_a_bit(threads: int, form: ModuleType) -> None:
    pre, delta = normal(7, 700, seed=6), normal(3, 7, 700, seed=7)
    expected = form.gelu_delta(pre, delta.clone(), "gelu_new")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert torch.equal(form.gelu_delta(pre, delta.clone(), "gelu_new"), expected)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("pre", "delta"),
    [((3, 8), (2, 4, 8)), ((3, 8), (2, 3, 9)), ((8,), (3, 8)), ((3, 8), (8,))],
)
def test_shapes_that_do_not_fit_are_refused(pre: tuple, delta: tuple) -> None:
    load_kernels()
    with pytest.raises(RuntimeError, match=r"base must be|delta must be"):
        cpu_ops.gelu_delta(torch.zeros(pre), torch.zeros(delta), "gelu_new")
    with pytest.raises(RuntimeError, match=r"activation must be gelu_new, .* got tanh"):
        cpu_ops.gelu_delta(torch.zeros(3, 8), torch.zeros(2, 3, 8), "tanh")
    with pytest.raises(RuntimeError, match="must be float32"):
        cpu_ops.gelu_delta(torch.zeros(3, 8).double(), torch.zeros(2, 3, 8), "gelu_new")
