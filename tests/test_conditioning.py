"""The allowance for questions that are not well posed: it is small, and faults do not pass it."""

from __future__ import annotations

import pytest
import torch
from compare import assert_exact
from conditioning import STEPS, moved_by_rounding, rounded
from small_models import ragged_pairs, tiny_model
from torch import Tensor

from ioi_fast import GPT2, pair_sweep, path_patch
from ioi_fast.results.promised_accuracy import sweep_error

TRUE = {"backend": "reference", "precision": "fp64"}


def of_heads(model: GPT2) -> Tensor:
    return path_patch(model, ragged_pairs(), **TRUE).values


def cancelling(model: GPT2) -> Tensor:
    """Queries at a token before END: what is left of them is 1e-5 of the metric."""
    asked = {"inputs": ["q"], "position": "S2", "between": "nothing", "per_prompt": True}
    return pair_sweep(model, ragged_pairs(1), **asked, **TRUE).values.flatten(0, -2)


def test_rounded_weights_are_off_by_a_rounding() -> None:
    model = tiny_model()
    there, off = model.weights.blocks[1].w_in.double(), rounded(model, 0).weights.blocks[1].w_in
    share = ((off - there) / there).abs()
    assert 2**-26 < share.median() < 2**-24 >= share.max() * (1 - 1e-6)
    other = rounded(model, 1).weights
    assert not torch.equal(other.blocks[1].w_in, off) and other.unembed is other.wte


def test_a_well_posed_question_allows_little() -> None:
    truth = of_heads(tiny_model())
    moved = moved_by_rounding(tiny_model(), truth, of_heads)
    assert 0 < moved < 1e-4 / STEPS
    assert_exact(truth, truth, tiny_model(), of_heads)
    with pytest.raises(AssertionError, match="error of the sweep"):
        assert_exact(truth * (1 + 2e-4), truth, tiny_model(), of_heads)


def test_one_that_is_not_allows_what_rounding_does_and_no_fault() -> None:
    model = tiny_model(8)
    truth = cancelling(model)
    moved = moved_by_rounding(model, truth, cancelling)
    assert 1e-5 < moved < 1e-4, "the example is not what it should be"
    other = cancelling(rounded(model, 77))
    assert sweep_error(other, truth) > 1e-5
    assert_exact(other, truth, model, cancelling, tolerance=1e-6)
    with pytest.raises(AssertionError, match="error of the sweep"):
        assert_exact(truth * 1.003, truth, model, cancelling)


def test_the_engine_misses_it_by_no_more_than_rounding() -> None:
    """Here a query that moved far once cost 2e-3."""
    model = tiny_model(8)
    asked = {"inputs": ["q"], "position": "S2", "per_prompt": True}
    fast = pair_sweep(model, ragged_pairs(1), **asked, between="nothing")
    assert sweep_error(fast.values.flatten(0, -2), cancelling(model)) <= 1e-4
