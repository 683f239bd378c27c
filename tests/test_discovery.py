"""Circuits found by machine: one that is known, since its model was made by hand, and what the
search is made of."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hand_made import CLASSES, EDGES, hand_made_circuit, hand_made_model, hand_made_pairs
from small_models import ragged_pairs, tiny_model

from ioi_fast import GPT2, ablate, attention
from ioi_fast.asked.nodes import Head
from ioi_fast.ioi import circuits
from ioi_fast.ioi.backwards import search_backwards
from ioi_fast.ioi.behaviour import score
from ioi_fast.ioi.class_of_head import KNOCKED_OUT, LOGITS, Traits, class_of
from ioi_fast.ioi.discovery import choose, discover, random_circuits, shares
from ioi_fast.ioi.evaluation import evaluate
from ioi_fast.ioi.pruning import Step, circuit_of_nodes, prune
from ioi_fast.ioi.reading import places_read


def node(head: str, role: str) -> tuple[Head, str]:
    return Head.parse(head), role


def test_the_model_made_by_hand_does_the_task_as_it_was_made_to() -> None:
    model, pairs = hand_made_model(), hand_made_pairs()
    assert score(model, pairs).accuracy == 1.0
    rows = torch.arange(len(pairs))
    meant = {"0.0": "S1", "0.1": "S1", "1.0": "S1+1", "2.0": "S2", "3.0": "IO", "4.0": "IO"}
    patterns = attention(model, pairs, list(meant))
    for (head, read), pattern in zip(meant.items(), patterns, strict=True):
        (role,) = hand_made_circuit().roles[Head.parse(head)]
        paid = pattern[rows, pairs.positions[role], pairs.positions[read]]
        assert paid.min() > 0.97, f"{head} at {role} reads {read}"


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_circuit_made_by_hand_is_found_exactly(seed: int) -> None:
    model, pairs = hand_made_model(seed), hand_made_pairs(60, seed)
    found = discover(model, pairs)
    assert found.circuit.roles == hand_made_circuit().roles
    named = {name: list(map(str, heads)) for name, heads in found.circuit.classes.items()}
    assert named == CLASSES
    assert set(found.circuit.edges) == EDGES
    assert found.faithful and found.chosen.miss < 0.01 and found.chosen.least > 0.3
    assert found.share_of_nodes(model) == 7 / (15 * 5)


def without(model: GPT2, head: str) -> GPT2:
    """The model with nothing written by a head."""
    layer, index = map(int, head.split("."))
    blocks, K = list(model.weights.blocks), model.config.d_head
    w_o = blocks[layer].w_o.clone()
    w_o[index * K : (index + 1) * K] = 0
    blocks[layer] = replace(blocks[layer], w_o=w_o)
    return GPT2(model.config, replace(model.weights, blocks=tuple(blocks)))


def test_a_head_that_writes_nothing_is_not_found() -> None:
    """Without the duplicate token head there are six, and without the mover its back-up moves."""
    model, pairs = hand_made_model(), hand_made_pairs()
    found = search_backwards(without(model, "0.1"), pairs).found
    assert {str(one.head) for one in found} == {"0.0", "1.0", "2.0", "3.0", "4.0", "4.1"}
    alone = search_backwards(without(model, "3.0"), pairs).found
    names = {str(one.head): one.name for one in alone}
    assert "3.0" not in names and names["4.1"] == circuits.MOVERS


def test_tokens_that_are_read_become_roles() -> None:
    """With S1+1 unnamed, induction heads read a token that is named by its distance from S1."""
    model, pairs = hand_made_model(), hand_made_pairs()
    unnamed = {role: at for role, at in pairs.positions.items() if role != "S1+1"}
    found = search_backwards(model, replace(pairs, positions=unnamed))
    assert "S1+1" in found.pairs.positions and "S1+1" not in unnamed
    assert torch.equal(found.pairs.positions["S1+1"], pairs.positions["S1+1"])
    assert {str(one) for one in found.found} >= {"0.0@S1+1", "1.0@S2"}


def test_places_read_are_named_by_the_nearest_role() -> None:
    model, pairs = hand_made_model(), hand_made_pairs()
    heads = [Head.parse(head) for head in ("2.0", "3.0", "4.1")]
    read = places_read(model, pairs, heads, "END", ["IO", "S1", "END"])
    assert read[heads[0]] == ("END-3",), "S2 by its distance"
    assert read[heads[1]] == ("IO",)
    assert read[heads[2]] == (), "the first token is where heads rest"
    after = {"senders": ["3.0"], "knock_out": {"3.0": "END"}}
    assert places_read(model, pairs, heads[2:], "END", pairs.roles, after)[heads[2]] == ("IO",)


@pytest.mark.parametrize(
    ("traits", "name"),
    [
        (Traits("END", ("IO",), LOGITS, False, 0.1, 0.9), "negative name mover"),
        (Traits("END", ("IO",), LOGITS, False, 0.9, 0.1), "negative name mover (reads IO)"),
        (Traits("END", ("S1", "IO"), LOGITS, True, 1.0), "name mover (reads IO, S1)"),
        (Traits("END", ("IO", "S1"), LOGITS, True, 1.0), "name mover"),
        (Traits("END", ("IO",), KNOCKED_OUT, True, 1.0), "backup name mover"),
        (Traits("END", (), KNOCKED_OUT, True, 1.0), "backup name mover (reads nothing)"),
        (Traits("END", ("S2", "IO"), "name mover.q", True), "S-inhibition"),
        (Traits("S2", ("S1+1",), "S-inhibition.k", False), "induction"),
        (Traits("S2", ("S1",), "S-inhibition.v", True), "duplicate token"),
        (Traits("S1+1", ("S1",), "induction.k", True), "previous token"),
        (Traits("END-1", ("S2", "IO"), "name mover.v", True), "END-1 from IO, S2"),
    ],
)
def test_classes(traits: Traits, name: str) -> None:
    assert class_of(traits) == name


def test_steps_are_circuits_evaluated_by_themselves() -> None:
    """Every share and worth again, from `evaluate` and from circuits without the knocked-out."""
    model, pairs = hand_made_model(), hand_made_pairs(24)
    classes = {
        node("3.0", "END"): circuits.MOVERS,
        node("4.1", "END"): circuits.BACKUPS,
        node("2.0", "END"): circuits.INHIBITION,
        node("0.1", "S2"): "S2 from S1",
        node("1.0", "S2"): "S2 from S1",
        node("0.1", "S1"): "S1 from S1",
    }
    steps = prune(model, pairs, classes)
    assert [len(step.nodes) for step in steps] == sorted({len(s.nodes) for s in steps})[::-1]
    assert steps[0].nodes == tuple(classes) and len(steps[-1].nodes) >= 1
    of_model = float(ablate(model, pairs, [{}]).base.double().mean())

    def share(nodes) -> float:
        run = ablate(model, pairs, [{}], "mean_by_form", circuit_of_nodes(nodes))
        return float(run.base.double().mean()) / of_model

    beside = {
        node("3.0", "END"): [[], [node("4.1", "END")]],
        node("4.1", "END"): [[], [node("3.0", "END")]],
        node("2.0", "END"): [[]],
        node("0.1", "S2"): [[], [node("1.0", "S2")]],
        node("1.0", "S2"): [[], [node("0.1", "S2")]],
        node("0.1", "S1"): [[]],
    }
    for step in steps:
        assert step.share == pytest.approx(share(step.nodes), abs=1e-5)
        for own, worth in zip(step.nodes, step.worth, strict=True):
            changes = []
            for others in beside[own]:
                left = [one for one in step.nodes if one not in others]
                without_own = [one for one in left if one != own]
                changes.append(abs(share(left) - share(without_own)))
            assert worth == pytest.approx(max(changes), abs=1e-5)


def test_the_largest_faithful_and_minimal_circuit_is_chosen() -> None:
    nodes = tuple(node(f"0.{index}", "END") for index in range(5))

    def step(size: int, share: float, least: float) -> Step:
        return Step(nodes[:size], share, (least,) * size)

    steps = [step(5, 1.0, 0.01), step(4, 0.9, 0.06), step(3, 0.95, 0.2), step(2, 0.5, 0.3)]
    assert choose(steps, 0.05, 0.15) == (steps[1], True)
    assert choose(steps, 0.005, 0.15) == (steps[0], True)
    assert choose(steps, 0.4, 0.15) == (steps[0], False), "none is: the closest"
    assert choose(steps, 0.25, 0.15) == (steps[0], False)
    assert choose(steps, 0.1, 0.06) == (steps[2], True)


def test_random_circuits_have_the_size_and_are_evaluated_alone() -> None:
    model, pairs = hand_made_model(), hand_made_pairs(24)
    drawn = random_circuits(model, pairs, 7, 12, seed=3)
    assert len(drawn) == 12 and all(len(one.nodes) == 7 for one in drawn)
    assert len({one.nodes for one in drawn}) == 12
    assert drawn[0].nodes == random_circuits(model, pairs, 7, 1, seed=3)[0].nodes
    found = shares(model, pairs, [hand_made_circuit(), *drawn], source="mean_by_form")
    alone = evaluate(model, pairs, drawn[3], [[]]).faithfulness.share
    assert found[0] == pytest.approx(1.0, abs=0.01) and found[4] == pytest.approx(alone, abs=1e-5)
    assert found[0] > found[1:].max() + 0.3
    twice = replace(pairs, positions={**pairs.positions, "again": pairs.positions["S2"]})
    one_by_one = shares(model, twice, random_circuits(model, twice, 7, 3), source="mean_by_form")
    for share, one in zip(one_by_one, random_circuits(model, twice, 7, 3), strict=True):
        truth = evaluate(model, twice, one, [[]]).faithfulness.share
        assert share == pytest.approx(truth, abs=1e-5)
    with pytest.raises(ValueError, match="circuits must have at least one circuit, got none"):
        shares(model, pairs, [])
    with pytest.raises(ValueError, match=r"source must be one of mean, .*, got 'median'"):
        discover(model, pairs, source="median")
    with pytest.raises(ValueError, match="size must be from 1 to 75, got 76"):
        random_circuits(model, pairs, 76)


def test_what_can_not_be_searched_is_refused() -> None:
    model, pairs = tiny_model(), ragged_pairs()
    worse = replace(pairs, answers=pairs.wrong_answers, wrong_answers=pairs.answers)
    values = [float(ablate(model, one, [{}]).base.mean()) for one in (pairs, worse)]
    with pytest.raises(ValueError, match="pairs: the model must prefer the answers"):
        discover(model, pairs if values[0] < 0 else worse)
    with pytest.raises(ValueError, match="least and level must lie between 0 and 1, got 2"):
        discover(model, pairs, least=2)
    with pytest.raises(ValueError, match="tolerance must lie between 0 and 1, got 0"):
        discover(model, pairs, tolerance=0)
    with pytest.raises(ValueError, match="no head moves the metric by 2% of its mean"):
        discover(model, pairs if values[0] > 0 else worse, level=1e-9)
