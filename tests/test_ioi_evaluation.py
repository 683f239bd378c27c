"""Faithfulness, completeness, minimality and the greedy search, against other ways to the same."""

from __future__ import annotations

import random

import pytest
import torch
from compare import assert_close
from small_models import ragged_pairs, tiny_model

from ioi_fast import Circuit, ablate, path_patch
from ioi_fast.asked.nodes import Head
from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.ioi.circuits import circuit_of_classes
from ioi_fast.ioi.completeness import greedy_search
from ioi_fast.ioi.evaluation import class_sets, evaluate, mean_counts, random_sets
from ioi_fast.ioi.minimality import minimality, minimality_sets

ROLES = {"0.1": "S2", "0.2": "S1", "1.0": "END", "2.1": "END", "2.2": "END"}
CLASSES = {"name mover": ["2.1", "2.2"], "S-inhibition": ["1.0"]}
CIRCUIT = Circuit(ROLES, {"early": ["0.1", "0.2"], **CLASSES})


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def pairs():
    return ragged_pairs(8)


@pytest.fixture(scope="module")
def more():
    return ragged_pairs(30, seed=5)


def without(*heads: str) -> Circuit:
    return Circuit({head: role for head, role in ROLES.items() if head not in heads})


def test_both_semantics(model, pairs, more) -> None:
    """C∖K is the circuit of fewer heads; M∖K knocks K out at their roles alone."""
    sets = [[], ["2.1"], ["0.1", "2.2"], list(ROLES), ["2.2", "0.1"]]
    found = evaluate(model, pairs, CIRCUIT, sets, mean_pairs=more)
    exact = {"backend": "reference", "precision": "fp64", "mean_pairs": more}
    for row, heads in enumerate(sets):
        fewer = ablate(model, pairs, [{}], "mean_by_form", without(*heads), **exact)
        assert_close(found.in_circuit[row], fewer.base)
        knocked = [{head: ROLES[head] for head in heads}]
        whole = ablate(model, pairs, knocked, "mean_by_form", **exact)
        assert_close(found.in_model[row], whole.base + whole.values[0])
    assert torch.equal(found.in_circuit[0], found.of_circuit)
    assert torch.equal(found.in_model[0], found.of_model)
    assert torch.equal(found.in_circuit[2], found.in_circuit[4]), "sets have no order"
    nothing = ablate(model, pairs, [{}], "mean_by_form", Circuit({}), **exact)
    assert_close(found.in_circuit[3], nothing.base)


def test_faithfulness(model, pairs) -> None:
    found = evaluate(model, pairs, CIRCUIT, [[]])
    one = found.faithfulness
    assert one.model == pytest.approx(float(found.of_model.double().mean()))
    assert one.model == pytest.approx(
        float(path_patch(model, pairs, ["0.0"]).base.mean()), rel=1e-4
    )
    assert one.distance == abs(one.model - one.circuit) and one.share == one.circuit / one.model
    assert one.prompts == 8 and one.interval[0] < one.share < one.interval[1]
    every = Circuit({str(Head(layer, head)): "END" for layer in range(3) for head in range(3)})
    single = PromptPairs([[5, 9]], [[5, 9]], [3], [4], positions={"END": [1]}, forms=[0])
    whole = evaluate(model, single, every, [[]]).faithfulness
    # Ablated elsewhere by means over one prompt that is its own counterpart: nothing changes.
    assert whole.distance < 1e-5 and whole.share == pytest.approx(1)


def test_an_interval_covers_what_it_says() -> None:
    from ioi_fast.ioi.evaluation import Faithfulness

    inside, generator = 0, torch.Generator().manual_seed(0)
    for draw in range(200):
        whole = 3 + torch.randn(60, generator=generator)
        part = 0.8 * whole + 0.5 * torch.randn(60, generator=generator)
        low, high = Faithfulness.of(whole, part, seed=draw).interval
        inside += low <= 0.8 <= high
    assert 0.88 <= inside / 200 <= 0.99


def test_incompleteness_and_points(model, pairs) -> None:
    found = evaluate(model, pairs, CIRCUIT, [["2.1"], ["0.1"]])
    assert found.points.shape == (2, 2)
    inside, outside = found.points[1].tolist()
    assert inside == pytest.approx(float(found.in_circuit[1].double().mean()))
    assert float(found.incompleteness[1]) == pytest.approx(abs(inside - outside))


@pytest.mark.parametrize(
    ("sets", "error", "message"),
    [
        ([], ValueError, "sets must hold at least one set"),
        ([["0.0"]], ValueError, r"sets\[0\]: 0\.0 is not in the circuit"),
        ([[], ["2.1", "L2H1"]], ValueError, r"sets\[1\]: 2\.1 is there twice"),
        (["2.1"], TypeError, r"sets\[0\] must be a list of heads"),
        ([[7]], ValueError, "expected a head like '9.6'"),
    ],
)
def test_sets_that_are_none(model, pairs, sets, error, message) -> None:
    with pytest.raises(error, match=message):
        evaluate(model, pairs, CIRCUIT, sets)


def test_random_sets_hold_half_of_the_heads() -> None:
    sets = random_sets(CIRCUIT, 2000, seed=1)
    assert random_sets(CIRCUIT, 2000, seed=1) == sets != random_sets(CIRCUIT, 2000, seed=2)
    shares = [sum(head in one for one in sets) / 2000 for head in CIRCUIT.roles]
    assert all(0.45 < share < 0.55 for share in shares)
    assert len({len(one) for one in sets}) == 6, "from none to all five"


def test_class_sets() -> None:
    circuit = circuit_of_classes({"name mover": ["2.1"], "backup name mover": ["2.0"]})
    joined = {"none": (), "name mover + backup name mover": (Head(2, 1), Head(2, 0))}
    assert class_sets(circuit) == joined
    assert list(class_sets(circuit, ())) == ["none", "name mover", "backup name mover"]
    assert class_sets(CIRCUIT)["early"] == (Head(0, 1), Head(0, 2))
    halves = {"name mover (reads S1)": ["2.1"], "backup name mover": ["2.0", "2.1"]}
    joined = class_sets(Circuit({"2.1": "END", "2.0": "END"}, halves))
    both = "name mover (reads S1) + backup name mover"
    assert joined == {"none": (), both: (Head(2, 1), Head(2, 0))}


def test_how_many_prompts_are_behind_a_mean() -> None:
    pairs = ragged_pairs(6, T=7)  # forms 0 and 1 in turn; ENDs 6, 5, 4 in turn
    assert mean_counts(pairs) == {"0": [3] * 5 + [2, 1], "1": [3] * 5 + [2, 1]}
    assert mean_counts(pairs, by_form=False) == {"all": [6] * 5 + [4, 2]}


def test_minimality(model, pairs) -> None:
    circuit = Circuit(ROLES, {"name mover": ["2.2", "2.1", "1.0"], "early": ["0.1", "0.2"]})
    found = {one.head: one for one in minimality(model, pairs, circuit)}
    assert set(found) == set(circuit.roles)
    for head, others in minimality_sets(circuit).items():
        one = found[head]
        assert one.others == others
        for heads, value in ((others, one.without_others), ((*others, head), one.without_both)):
            fewer = without(*map(str, heads))
            truth = ablate(model, pairs, [{}], "mean_by_form", fewer, backend="reference")
            assert value == pytest.approx(float(truth.base.mean()), rel=1e-3, abs=1e-4)
        change = abs(one.without_both - one.without_others)
        assert one.share == pytest.approx(change / abs(one.of_model))
        both, alone = (
            ablate(model, pairs, [{}], "mean_by_form", without(*map(str, heads))).base.double()
            for heads in ((*others, head), others)
        )
        error = float((both - alone).std()) / len(pairs) ** 0.5 / abs(one.of_model)
        assert one.stderr == pytest.approx(error, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("rule", ["code", "paper"])
def test_greedy_search_step_by_step(rule: str, model, pairs) -> None:
    """Against a plain loop over one run after another, a set at a time."""

    def point(heads: frozenset) -> tuple[float, float]:
        found = evaluate(model, pairs, CIRCUIT, [sorted(heads)]).points[0]
        return float(found[0]), float(found[1])

    last = []
    for run in range(3):
        rng, held = random.Random(f"greedy 4 {run}"), frozenset()
        for _ in range(4):
            left = [head for head in sorted(CIRCUIT.roles) if head not in held]
            drawn = rng.sample(left, min(2, len(left)))
            own = point(held)
            scores = []
            for head in drawn:
                inside, outside = point(held | {head})
                worse = abs(inside - outside) - abs(own[0] - own[1])
                scores.append(worse if rule == "code" else abs(inside - own[0]))
            best = scores.index(max(scores))
            if rule == "paper" or scores[best] > 0:
                held |= {drawn[best]}
        last.append(held)
    asked = {"rule": rule, "runs": 3, "steps": 4, "candidates": 2, "seed": 4}
    found = greedy_search(model, pairs, CIRCUIT, **asked)
    assert [frozenset(one.heads) for one in found.last] == last
    worst = [one.incompleteness for one in found.visited]
    assert worst == sorted(worst, reverse=True) and {one.heads for one in found.visited} >= {()}
    inside, outside = point(frozenset(found.visited[0].heads))
    assert found.visited[0].in_circuit == pytest.approx(inside, rel=1e-4, abs=1e-5)
    assert found.visited[0].in_model == pytest.approx(outside, rel=1e-4, abs=1e-5)


def test_a_greedy_search_ends_with_all_heads(model, pairs) -> None:
    found = greedy_search(model, pairs, CIRCUIT, rule="paper", runs=2, steps=9, candidates=3)
    assert all(set(one.heads) == set(CIRCUIT.roles) for one in found.last)


@pytest.mark.parametrize("wrong", [{"rule": "mine"}, {"runs": 0}, {"steps": 0}, {"candidates": 0}])
def test_greedy_arguments(wrong: dict, model, pairs) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
        greedy_search(model, pairs, CIRCUIT, **wrong)
