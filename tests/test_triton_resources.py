"""The Triton kernels compile for every target, spill nothing and fit: without a GPU."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch

if find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)

from ioi_fast.benchmarks import kernel_resources
from ioi_fast.benchmarks.kernel_resources import (
    SHARED,
    TARGETS,
    Case,
    Resources,
    cases,
    compiled,
    compiled_all,
    signature,
)
from ioi_fast.kernels import triton_ops


def check(case: Case, target: str, found: Resources | None = None) -> None:
    found = compiled(case, target) if found is None else found
    assert found.spilled == 0, f"{case.name} on {target} spills: {found}"
    assert found.shared <= SHARED[target] * 1024, f"{case.name} on {target}: {found}"
    if case.precision in ("tf32", "bf16"):
        assert found.tensor_cores, f"{case.name} on {target} multiplies without a matrix unit"


def one_of_each() -> list[Case]:
    """One tile of each kernel and precision."""
    first: dict[tuple, Case] = {}
    for case in cases():
        first.setdefault((case.kernel, case.precision), case)
    return list(first.values())


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=[pytest.mark.slow] * (case.precision != "ieee"))
        for case in one_of_each()
    ],
    ids=lambda case: case.name,
)
def test_one_tile_a_kernel_and_precision(case: Case) -> None:
    check(case, "sm_80")
    check(case, "gfx942")


# Of rows that do not begin at multiples of 16 two targets stand for all; docs/kernels.md has all.
EVERY = [
    (case, target)
    for case in cases()
    for target in (TARGETS if case.aligned else ("sm_80", "gfx942"))
]


@pytest.fixture(scope="module")
def every_tile() -> dict[tuple[Case, str], Resources]:
    return compiled_all(EVERY)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("case", "target"), EVERY, ids=lambda one: getattr(one, "name", one))
def test_every_tile(case: Case, target: str, every_tile: dict) -> None:
    check(case, target, every_tile[case, target])


def told(value: object, left_out: bool) -> tuple[str, bool]:
    """Type and hint that Triton's launcher makes of an argument."""
    if isinstance(value, torch.Tensor):
        names = {torch.float32: "*fp32", torch.int64: "*i64", torch.int8: "*i8"}
        return names[value.dtype], value.data_ptr() % 16 == 0
    if isinstance(value, float):
        return "fp32", False
    assert -(2**31) <= value < 2**31 and (left_out or value != 1), (
        "another kernel would be compiled"
    )
    return "i32", not left_out and value % 16 == 0


def launches_of_gpt2_small(monkeypatch) -> list[tuple]:
    """Launches of every operation on GPT-2 small's shapes, which run nothing."""
    seen: list[tuple] = []

    def launch(kernel, programs, chosen, *given, PRECISION=None):
        seen.append((Case(kernel, chosen, PRECISION), given))

    monkeypatch.setattr(triton_ops, "launch_kernel", launch)
    zeros, P, N, H, K, D, F = torch.zeros, 3, 2, 12, 64, 768, 3072
    for T, S in ((16, 16), (1, 21), (1, 100), (40, 100)):
        qkv, table = zeros(N, S, 3, H, K), torch.full((P, N, T, H), -1, dtype=torch.int8)
        base = (qkv[:, :T, 0], qkv[:, :, 1], qkv[:, :, 2])
        delta = (zeros(P, N, T, H, K), zeros(P, N, 5, H, K), zeros(P, N, 5, H, K))
        places = [torch.zeros(N, rows, dtype=torch.int64) for rows in (T, 5)]
        sources = zeros(2, N, T, H, K)
        triton_ops.attention_delta(*base, *delta, 0.125, *places, table, sources)
    rows, gain = zeros(P, N, D), zeros(D)
    triton_ops.layernorm_delta(zeros(N, D), rows, gain, 1e-5)
    triton_ops.readout_delta(zeros(N, D), rows, gain, 1e-5, zeros(N, D))
    triton_ops.gelu_delta(zeros(N, F), zeros(P, N, F), "gelu_new")
    triton_ops.to_tf32(rows)
    triton_ops.mlp_in_delta(zeros(N, F), rows.flatten(0, 1), zeros(D, F))
    heads = torch.zeros(P, dtype=torch.int64)
    triton_ops.head_write(rows, heads, zeros(N, H, K), heads, zeros(H, K, D))
    return seen


def test_what_is_compiled_is_what_is_launched(monkeypatch) -> None:
    """Types and hints of every argument; with others the file is another kernel."""
    launched = launches_of_gpt2_small(monkeypatch)
    assert len({case.kernel.__name__ for case, _ in launched}) == 9
    known = set(cases())
    for case, given in launched:
        assert case in known, case.name
        types, multiples = signature(case)
        for parameter, value in zip(case.kernel.params, given, strict=False):
            kind, multiple = told(value, parameter.do_not_specialize)
            assert types[parameter.name] == kind, (case.name, parameter.name)
            assert (parameter.name in multiples) == multiple, (case.name, parameter.name)


@pytest.mark.slow
def test_a_kernel_that_spills_is_seen(monkeypatch) -> None:
    """More variants than registers hold."""
    wide = next(case for case in cases() if case.kernel.__name__ == "attention_delta_queries")
    launch = kernel_resources.Launch(
        (("VARIANTS", 16), ("KEYS", 64), ("WIDTH", 128), ("QUERIES", 64), ("SLOTS", 64)), 4
    )
    with pytest.raises(AssertionError, match="spills"):
        check(replace(wide, launch=launch), "sm_80")


def test_fp32_stays_off_the_matrix_units_of_nvidia() -> None:
    """TF32 would be the default there."""
    case = next(one for one in cases() if one.precision == "ieee")
    assert not compiled(case, "sm_80").tensor_cores
