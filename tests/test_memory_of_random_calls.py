"""A plan's bound against what the tensors of its call took at once, for calls of all kinds."""

from __future__ import annotations

from random import Random

import pytest
import torch
from random_calls import Call, random_call

from ioi_fast import explain
from ioi_fast.plan.memory.room import BESIDE

# Below it what is beside large tensors, 5 MiB in a plan, is most of a call.
COUNTED = 8 << 20

pytestmark = pytest.mark.usefixtures("counted")


def check(call: Call, **more: object) -> int:
    """Raises AssertionError unless the plan is a bound and near; the bytes that it says."""
    call.function(call.model, call.few, **call.asked)  # packs the weights
    call.function(call.model, call.pairs, **call.asked, **more)
    took = torch.ops.ioi_fast.workspace_peak()
    plan = explain(call.function, call.model, call.pairs, **call.asked, **more)
    planned = plan.peak_bytes - BESIDE
    said = f"{planned / took:.3f}: planned {planned / 2**20:.2f}, took {took / 2**20:.2f}: {call}"
    print(said)
    assert took < COUNTED or 0.97 <= planned / took <= 1.4, said
    return plan.peak_bytes


def check_with_budget(seed: int) -> None:
    call = random_call(seed)
    whole = check(call)
    share = Random(seed).choice([0.3, 0.6])
    budget = BESIDE + int(share * (whole - BESIDE))
    try:
        explain(call.function, call.model, call.pairs, **call.asked, max_memory=budget)
    except ValueError as error:
        assert "max_memory must be at least" in str(error)
        return
    assert check(call, max_memory=budget) <= budget


@pytest.mark.parametrize(
    "seed", [pytest.param(n, marks=[pytest.mark.slow] * (n % 5 > 0)) for n in range(30)]
)
def test_a_plan_counts_the_tensors_of_its_call(seed: int) -> None:
    check_with_budget(seed)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 1100, 10))
def test_of_many_more(first: int) -> None:
    for seed in range(first, first + 10):
        check_with_budget(seed)
