"""Sweeps over pairs of heads: the fast path against the reference, and against single patches."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from compare import assert_close, assert_exact
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import moved_pairs, ragged_pairs, shifted_pairs, tiny_model

from ioi_fast import GPT2, PairResult, PromptPairs, explain, pair_sweep, path_patch
from ioi_fast.plan.memory.room import BESIDE

PROMPTS = {"ragged": ragged_pairs, "moved": moved_pairs, "shifted": shifted_pairs}


def compare(model: GPT2, pairs: PromptPairs, **asked: object) -> PairResult:
    """The fast sweep, which equals the true one in every value."""

    def ask(model: GPT2) -> PairResult:
        true = {"backend": "reference", "precision": "fp64"}
        return pair_sweep(model, pairs, per_prompt=True, **true, **asked)

    truth = ask(model)
    fast = pair_sweep(model, pairs, per_prompt=True, backend="cpu", **asked)
    assert fast.values.shape == truth.values.shape == (*fast.shape, len(pairs))
    assert fast.inputs == truth.inputs and fast.backend.startswith("cpu/")
    values = (fast.values.flatten(0, -2), truth.values.flatten(0, -2))
    assert_exact(*values, model, lambda model: ask(model).values.flatten(0, -2))
    assert (fast.base - truth.base).abs().max() <= 1e-5 * truth.base.abs().max().clamp(min=1)
    return fast


@pytest.mark.parametrize("between", ["mlps", "nothing"])
@pytest.mark.parametrize("position", [None, "END", "S2"])
def test_every_pair_equals_the_reference(position: object, between: str) -> None:
    compare(tiny_model(), ragged_pairs(), position=position, between=between)


@pytest.mark.parametrize("prompts", [moved_pairs, shifted_pairs], ids=["moved", "shifted"])
def test_roles_that_stand_elsewhere(prompts: Callable) -> None:
    for position in ("S2", "S1", "END"):
        compare(tiny_model(), prompts(), position=position, inputs=["v", "q"])


@settings(max_examples=20)
@given(data=st.data())
def test_any_model_any_prompts(data: st.DataObject) -> None:
    layers, heads = data.draw(st.integers(1, 4)), data.draw(st.sampled_from([1, 2, 3]))
    model = tiny_model(data.draw(st.integers(0, 9)), n_layer=layers, n_head=heads)
    pairs = ragged_pairs(data.draw(st.integers(1, 5)), seed=data.draw(st.integers(0, 9)))
    inputs = data.draw(st.lists(st.sampled_from("qkv"), min_size=1, max_size=3, unique=True))
    position = data.draw(st.sampled_from([None, "END", "S1", "S2"]))
    between = data.draw(st.sampled_from(["mlps", "nothing"]))
    compare(model, pairs, inputs=inputs, position=position, between=between)


@pytest.mark.parametrize("metric", ["prob", "kl", "accuracy"])
def test_other_metrics(metric: str) -> None:
    compare(tiny_model(), ragged_pairs(), metric=metric, inputs=["k"])


def test_it_is_a_path_patch_for_each_receiver() -> None:
    model, pairs = tiny_model(), ragged_pairs()
    sweep = pair_sweep(model, pairs, per_prompt=True, between="mlps", position="END")
    for index, site in enumerate("qkv"):
        one = path_patch(model, pairs, "heads", [f"2.1.{site}"], "END", "mlps")
        values = one.values.view(3, 3, -1)
        assert_close(sweep.values[index, :, :, 2, 1], values, 1e-5)
        assert_close(sweep.effect[index, :, :, 2, 1], one.effect, 1e-5)
        assert_close(sweep.stderr[index, :, :, 2, 1], one.stderr, 1e-5)


def test_a_sender_that_is_not_earlier_has_no_effect() -> None:
    sweep = pair_sweep(tiny_model(), ragged_pairs())
    layers = torch.arange(3)
    earlier = layers[:, None] < layers
    by_layer = sweep.effect.abs().amax((0, 2, 4))
    assert by_layer[earlier].gt(0).all() and not by_layer[~earlier].any()


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_blocks_of_prompts_do_not_change_the_answer(share: float) -> None:
    model, pairs = tiny_model(), ragged_pairs(6)
    budget = BESIDE + int(share * (explain(pair_sweep, model, pairs).peak_bytes - BESIDE))
    whole = pair_sweep(model, pairs, per_prompt=True)
    cut = pair_sweep(model, pairs, per_prompt=True, max_memory=budget)
    assert len(explain(pair_sweep, model, pairs, max_memory=budget).prompt_blocks) > 1
    assert_close(cut.values, whole.values, 1e-5)
    assert_close(cut.effect, whole.effect, 1e-5)
    assert_close(cut.stderr, whole.stderr)


def test_sums_are_those_of_the_values() -> None:
    pairs = ragged_pairs(5)
    for position in (None, "S2"):
        full = pair_sweep(tiny_model(), pairs, per_prompt=True, position=position)
        sums = pair_sweep(tiny_model(), pairs, position=position)
        assert sums.values is None and torch.equal(sums.effect, full.effect)
        assert_close(full.effect, full.values.double().mean(-1), 1e-6)
        assert_close(full.stderr, full.values.double().std(-1) / 5**0.5, 1e-5)


def test_ranking_names_the_strongest_pairs() -> None:
    result = pair_sweep(tiny_model(), ragged_pairs())
    ranking = result.ranking()
    assert len(ranking) == 3 * 27 and result.ranking(4) == ranking[:4]
    sender, receiver, effect, stderr = ranking[0]
    assert abs(effect) == result.effect.abs().max() and stderr > 0
    (a, b), (c, d, site) = sender.split("."), receiver.split(".")
    place = ("qkv".index(site), int(a), int(b), int(c), int(d))
    assert result.effect[place] == effect and int(a) < int(c)
    strengths = [abs(row[2]) for row in ranking]
    assert strengths == sorted(strengths, reverse=True)


def test_one_prompt_and_json() -> None:
    result = pair_sweep(tiny_model(), ragged_pairs(1), inputs=["q"], per_prompt=True)
    assert result.stderr.isnan().all() and "PairResult(effect [1, 3, 3, 3, 3]" in repr(result)
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert plain["stderr"] is None and plain["inputs"] == ["q"]
    assert torch.equal(torch.tensor(plain["effect"]), result.effect)
    assert_close(result.relative * result.base.mean(), result.effect, 1e-6)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"inputs": "q"}, TypeError, "inputs must be a list of 'q', 'k' and 'v', got 'q'"),
        ({"inputs": []}, ValueError, "inputs must be a list of 'q', 'k' and 'v', got an empty"),
        ({"inputs": {"q", "v"}}, TypeError, "inputs must be a list of 'q', 'k' and 'v', got {"),
        ({"inputs": {"q": 1}}, TypeError, "inputs must be a list of 'q', 'k' and 'v', got {'q'"),
        ({"progress": 1}, TypeError, "progress must be True or False, got 1"),
        ({"inputs": ["q", "z"]}, ValueError, "inputs must be one of q, k, v, got 'z'"),
        ({"inputs": ["q", "q"]}, ValueError, "inputs must differ"),
        ({"between": "heads"}, ValueError, "between must be one of mlps, nothing"),
        ({"position": "X"}, ValueError, "position"),
        ({"per_prompt": 1}, TypeError, "per_prompt must be True or False, got 1"),
        ({"metric": "loss"}, ValueError, "metric"),
        ({"max_memory": 1000}, ValueError, "max_memory must be at least"),
    ],
)
def test_bad_arguments(arguments: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        pair_sweep(tiny_model(), ragged_pairs(), **arguments)
    with pytest.raises(error, match=message):
        explain(pair_sweep, tiny_model(), ragged_pairs(), **arguments)
