"""Blocks of a plan: a memory budget is kept or refused, and nothing is lost or done twice."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import ragged_pairs, shifted_pairs, tiny_model
from small_plans import SMALL, TINY, any_senders, planned, prompts_of_all_kinds

from ioi_fast import explain, path_patch
from ioi_fast.plan.fit_to_memory import Budget
from ioi_fast.plan.memory.room import BESIDE
from ioi_fast.plan.path_patch import PathPlan
from ioi_fast.plan.path_variants import PathPrompt


def check_blocks(plan: PathPlan) -> None:
    """Every prompt and every sender in one block; kinds apart; the longest first."""
    placed = [index for block in plan.prompt_blocks for index in block]
    assert sorted(placed) == list(range(len(plan.prompts)))
    rows = [row for block in plan.variant_blocks for row in block]
    assert rows == list(range(len(plan.variants)))
    assert all(plan.prompt_blocks) and all(plan.variant_blocks)
    kinds = []
    for block in plan.prompt_blocks:
        members = [plan.prompts[index] for index in block]
        kind = {(prompt.live, prompt.live and prompt.aligned) for prompt in members}
        assert len(kind) == 1, "prompts that are run in different ways share a block"
        kinds += [(kind.pop(), [prompt.end for prompt in members])]
    for kind in {kind for kind, _ in kinds}:
        ends = [end for other, block in kinds if other == kind for end in block]
        assert ends == sorted(ends, reverse=True)


@settings(max_examples=200)
@given(
    prompts=prompts_of_all_kinds(most=40),
    senders=any_senders(),
    vocabulary=st.sampled_from([0, 9]),
    share=st.floats(0.0, 1.5),
)
def test_a_memory_budget_is_kept_or_refused(prompts, senders, vocabulary, share: float) -> None:
    check_budget(prompts, senders, share, vocabulary=vocabulary)


@settings(max_examples=100)
@given(data=st.data(), senders=any_senders(), share=st.floats(0.0, 1.5))
def test_a_memory_budget_is_kept_with_receivers(data, senders, share: float) -> None:
    """Patched at one token of each prompt, or at all (which match token by token) up to END."""
    everywhere = data.draw(st.booleans())
    prompts = data.draw(prompts_of_all_kinds(most=40, at_end=everywhere, aligned=everywhere))
    receivers = data.draw(st.sampled_from([["1.0.q", "2.1.v"], ["mlp1"], ["1.1.k", "mlp2"]]))
    check_budget(prompts, senders, share, receivers=receivers, everywhere=everywhere)


def of_the_tensors(plan: PathPlan, share: float) -> int:
    """A budget for a share of a plan's tensors, and what is there beside them."""
    return BESIDE + int(share * (plan.peak_bytes - BESIDE))


def check_budget(prompts, senders, share: float, **asked: object) -> None:
    """Plans for a share of what an unbounded plan takes: it fits, or what is needed is named."""
    free = planned(TINY, prompts, senders, **asked)
    check_blocks(free)
    budget = of_the_tensors(free, share)
    try:
        plan = planned(TINY, prompts, senders, **asked, max_memory=budget)
    except ValueError as error:
        needed = int(str(error).split("at least ")[1].split()[0])
        assert needed == Budget().peak_bytes(free.cut((1, 1))) > budget
        plan = planned(TINY, prompts, senders, **asked, max_memory=needed)
        assert plan.peak_bytes <= needed
    else:
        assert plan.peak_bytes <= budget
    check_blocks(plan)
    assert plan.flops == free.flops, "splitting repeats no work"


def test_too_small_a_budget_says_what_is_needed() -> None:
    with pytest.raises(ValueError, match=r"max_memory must be at least \d+ bytes .* got 1000$"):
        planned(TINY, [PathPrompt(6, 4, 1, True)], "heads", max_memory=1000)


def test_halving_the_budget_makes_more_blocks_of_smaller_peak() -> None:
    prompts = [PathPrompt(10 + n % 7, 10 + n % 7, 2, True) for n in range(24)]
    peaks, counts = [], []
    whole = planned(SMALL, prompts, "heads")
    for halved in range(5):
        budget = of_the_tensors(whole, 2**-halved)
        plan = planned(SMALL, prompts, "heads", max_memory=budget)
        peaks.append(plan.peak_bytes - BESIDE)
        counts.append(len(plan.prompt_blocks) * len(plan.variant_blocks))
    assert counts == sorted(set(counts)) and counts[0] == 1
    assert all(peak <= peaks[0] / 2**halved for halved, peak in enumerate(peaks))
    assert all(later < earlier for earlier, later in itertools.pairwise(peaks))


def test_three_quarters_of_a_block_are_tried_where_half_fits() -> None:
    prompts = [PathPrompt(2, 2, 1, True)] * 24
    whole = planned(SMALL, prompts, "heads")
    for senders, budget in ((108, 108), (72, 107)):
        enough = Budget().peak_bytes(whole.cut((24, budget)))
        plan = planned(SMALL, prompts, "heads", max_memory=enough)
        assert (plan.prompt_blocks.largest, len(plan.variant_blocks[0])) == (24, senders)


@pytest.mark.parametrize("prompts", [ragged_pairs, shifted_pairs], ids=["ragged", "shifted"])
def test_progress_counts_the_layers_that_are_walked(prompts, monkeypatch) -> None:
    told, steps = [], []

    def bar(total: int, description: str, progress: bool):
        steps.append(total)
        return contextlib.nullcontext(told.append)

    monkeypatch.setattr("ioi_fast.calls.path_patch.bar", bar)
    model, pairs = tiny_model(), prompts(N=9)
    for senders in ("heads", "mlps", ["2.0", ["1.1", "mlp2"]]):
        told.clear()
        whole = explain(path_patch, model, pairs, senders=senders)
        budget = of_the_tensors(whole, 0.5)
        path_patch(model, pairs, senders, backend="cpu", max_memory=budget)
        assert sum(told) == steps[-1] > 0
