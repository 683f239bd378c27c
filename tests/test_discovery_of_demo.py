"""What is found in the bundled model: small, faithful, needed, better than chance, and the same
heads whatever the prompts."""

from __future__ import annotations

from functools import cache
from itertools import combinations

import pytest

from ioi_fast import GPT2, ioi_prompts, load
from ioi_fast.ioi.discovery import Discovery, discover, random_circuits, shares
from ioi_fast.ioi.evaluation import evaluate
from ioi_fast.ioi.minimality import minimality
from ioi_fast.ioi.roles import with_roles

pytestmark = pytest.mark.slow
SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def model() -> GPT2:
    return load("demo")


@cache
def found(seed: int) -> Discovery:
    """With means over other prompts."""
    model = load("demo")
    pairs, means = (ioi_prompts(model.tokenizer, n, s) for n, s in ((100, seed), (400, 100 + seed)))
    return discover(model, pairs, mean_pairs=means)


@pytest.mark.parametrize("seed", SEEDS)
def test_small_faithful_and_needed(model: GPT2, seed: int) -> None:
    one = found(seed)
    assert one.faithful and one.chosen.miss <= 0.15 and one.chosen.least >= 0.05
    assert one.share_of_nodes(model) <= 0.15
    assert len(one.circuit.nodes) == len(one.chosen.nodes)


def test_the_same_heads_on_other_prompts() -> None:
    for one, other in combinations([set(found(seed).circuit.nodes) for seed in SEEDS], 2):
        assert len(one & other) / len(one | other) >= 0.8


def test_better_than_a_hundred_random_circuits(model: GPT2) -> None:
    one = found(0)
    means = with_roles(ioi_prompts(model.tokenizer, 400, 100), one.pairs.roles)
    how = {"source": "mean_by_form", "mean_pairs": means}
    drawn = random_circuits(model, one.pairs, len(one.circuit.nodes), 100)
    of_random = shares(model, one.pairs, drawn, **how)
    own = evaluate(model, one.pairs, one.circuit, [[]], **how).faithfulness.share
    assert own == pytest.approx(one.chosen.share, abs=1e-4)
    assert own > of_random.max() + 0.3
    assert abs(1 - own) < (1 - of_random).abs().min() - 0.3


def test_on_prompts_that_it_was_not_found_on(model: GPT2) -> None:
    """Faithful and minimal there too, a little less than where it was chosen."""
    one = found(0)
    pairs = with_roles(ioi_prompts(model.tokenizer, 200, 50), one.pairs.roles)
    means = with_roles(ioi_prompts(model.tokenizer, 800, 51), one.pairs.roles)
    how = {"source": "mean_by_form", "mean_pairs": means}
    assert 0.75 <= evaluate(model, pairs, one.circuit, [[]], **how).faithfulness.share <= 1.25
    worth = minimality(model, pairs, one.circuit, **how)
    assert {own.head for own in worth} == set(one.circuit.roles)
    assert min(own.share for own in worth) >= 0.01
