"""The Triton kernels compile for every target, spill nothing and fit: without a GPU."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import pytest

if find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)

from ioi_fast.benchmarks import kernel_resources
from ioi_fast.benchmarks.kernel_resources import SHARED, TARGETS, Case, cases, compiled


def check(case: Case, target: str) -> None:
    found = compiled(case, target)
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


@pytest.mark.parametrize("case", one_of_each(), ids=lambda case: case.name)
def test_one_tile_a_kernel_and_precision(case: Case) -> None:
    check(case, "sm_80")
    check(case, "gfx942")


@pytest.mark.slow
@pytest.mark.parametrize("target", list(TARGETS))
@pytest.mark.parametrize("case", list(cases()), ids=lambda case: case.name)
def test_every_tile(case: Case, target: str) -> None:
    check(case, target)


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
