"""Heads to a class of heads, back-ups of what is knocked out, and MLPs without which F changes."""

from __future__ import annotations

import pytest
import torch
from compare import assert_close
from small_models import ragged_pairs, tiny_model

from ioi_fast import GPT2, Circuit, PromptPairs, ablate, path_patch
from ioi_fast.asked.nodes import Head
from ioi_fast.ioi.circuits import INDUCTION, INHIBITION, MOVERS
from ioi_fast.ioi.paths import Backups, backups, mlp_knock_outs, to_class
from ioi_fast.results.result import Result

CIRCUIT = Circuit(
    {"2.1": "END", "2.2": "END", "1.0": "END", "1.2": "S2"},
    {MOVERS: ["2.1", "2.2"], INHIBITION: ["1.0"], INDUCTION: ["1.2"], "mine": ["1.2"]},
)
EXACT = {"backend": "reference", "precision": "fp64"}


@pytest.fixture(scope="module")
def model() -> GPT2:
    return tiny_model()


@pytest.fixture(scope="module")
def pairs() -> PromptPairs:
    drawn = ragged_pairs(6)
    at = {**drawn.positions, "S1+1": drawn.positions["S1"] + 1}
    given = (drawn.orig, drawn.new, drawn.answers, drawn.wrong_answers)
    return PromptPairs(*given, positions=at, forms=drawn.forms)


@pytest.mark.parametrize(
    ("name", "site", "position"),
    [
        (MOVERS, "q", "END"),
        (INHIBITION, "v", "S2"),
        (INHIBITION, "k", "S2"),
        (INHIBITION, "q", "END"),
        (INDUCTION, "k", "S1+1"),
        (INDUCTION, "q", "S2"),
        ("mine", "v", "S2"),
    ],
)
def test_positions_are_those_of_the_paper(
    name: str, site: str, position: str, model, pairs
) -> None:
    receivers = [f"{head}.{site}" for head in CIRCUIT.classes[name]]
    truth = path_patch(model, pairs, "heads", receivers, position, **EXACT)
    found = to_class(model, pairs, CIRCUIT, name, site)
    assert_close(found.values, truth.values)
    assert found.values.abs().max() > 0


def test_another_position_and_other_senders(model, pairs) -> None:
    found = to_class(model, pairs, CIRCUIT, MOVERS, "k", position="S1", senders="mlps")
    truth = path_patch(model, pairs, "mlps", ["2.1.k", "2.2.k"], "S1", **EXACT)
    assert_close(found.values, truth.values)


def test_names_of_classes_and_sites(model, pairs) -> None:
    with pytest.raises(ValueError, match=r"name must be one of name mover, .*, got 'movers'"):
        to_class(model, pairs, CIRCUIT, "movers", "q")
    with pytest.raises(ValueError, match="site must be 'q', 'k' or 'v', got 'z'"):
        to_class(model, pairs, CIRCUIT, MOVERS, "z")


def test_backups(model, pairs) -> None:
    found = backups(model, pairs, ["2.1", Head(1, 0)])
    knock_out = {"2.1": "END", "1.0": "END"}
    how = {"knock_out": knock_out, "knock_out_source": "mean_by_form"}
    truth = path_patch(model, pairs, **how, **EXACT)
    assert_close(found.after.values, truth.values)
    knocked = ablate(model, pairs, [knock_out], "mean_by_form", **EXACT)
    left = (knocked.base + knocked.values[0]).double().mean() / knocked.base.double().mean()
    assert found.remaining == pytest.approx(float(left), rel=1e-4)
    assert found.knocked_out == (Head(2, 1), Head(1, 0))


def sweep(effects: list, base: float) -> Result:
    values = torch.tensor(effects).flatten()[:, None].expand(-1, 2)
    return Result(values, torch.full((2,), base), ("",) * 4, (2, 2), "cpu", "fp32", {})


def test_which_heads_back_up() -> None:
    """0.1 grew to 5 %, 1.0 to 3 %; 0.0 was there before, 1.1 is knocked out."""
    before = sweep([[-1.0, 0.1], [-0.1, -2.0]], 10.0)
    after = sweep([[-0.9, -0.5], [-0.3, -2.1]], 9.0)
    found = Backups((Head(1, 1),), before, after)
    assert found.heads() == [Head(0, 1), Head(1, 0)]
    assert found.heads(0.04) == [Head(0, 1)]
    assert found.remaining == pytest.approx(0.9)
    assert_close(found.change, torch.tensor([[-0.01, 0.06], [0.02, 0.01]]).double(), 1e-5)


def test_mlp_knock_outs(model, pairs) -> None:
    found = mlp_knock_outs(model, pairs)
    sets = [{"mlp0": "all"}, {"mlp1": "all"}, {"mlp2": "all"}, {"mlp1": "all", "mlp2": "all"}]
    truth = ablate(model, pairs, sets, "mean_by_form", **EXACT)
    assert_close(found.alone, (truth.base + truth.values)[:3])
    assert_close(found.all_but_first, (truth.base + truth.values)[3])
    assert found.mean.shape == (3,) and torch.equal(found.base, ablate(model, pairs, [{}]).base)
    at_end = mlp_knock_outs(model, pairs, position="END").alone
    assert not torch.allclose(at_end, found.alone, atol=1e-4)
    with pytest.raises(ValueError, match="model must have at least two layers, got 1"):
        mlp_knock_outs(tiny_model(n_layer=1), pairs)
