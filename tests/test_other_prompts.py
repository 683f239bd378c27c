"""Studies of prompts of another task: what runs, and what names the thing that is missing."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from hand_made import CLASSES, hand_made_circuit, hand_made_model, hand_made_pairs
from small_models import reading_model

from ioi_fast import GPT2, Circuit, PromptPairs, ablate, ioi_prompts, load, path_patch
from ioi_fast.cli import main
from ioi_fast.ioi.circuits import circuit_of_classes, published_circuit
from ioi_fast.ioi.costs import predicted_flops
from ioi_fast.ioi.evaluation import evaluate
from ioi_fast.ioi.experiments import DRAWING, EXPERIMENTS, ROLES
from ioi_fast.ioi.roles import NeedsRoles
from ioi_fast.ioi.study import LACKING, NeedsCircuit, NeedsTokenizer, Study

OTHER_NAMES = {"IO": "the one", "S1": "said", "S1+1": "behind", "S2": "again", "END": "END"}
BARE = {"F", "E1", "E17", "E19", "E24", "E25"}
OF_CIRCUIT = {"E20", "E21"}


def lists(n: int = 12) -> PromptPairs:
    """Four tokens and the first of them again; the second and third change places."""
    generator = torch.Generator().manual_seed(0)
    said = torch.stack([torch.randperm(1000, generator=generator)[:4] for _ in range(n)])
    orig = said[:, [0, 1, 2, 3, 0]]
    at = {role: [place] * n for place, role in enumerate(("A1", "B1", "C1", "D1", "END"))}
    return PromptPairs(orig, orig[:, [0, 2, 1, 3, 4]], orig[:, 1], orig[:, 2], positions=at)


def outcome(study: Study, name: str) -> type | None:
    """None where an experiment gives figures, else what it raised."""
    predicted_flops(study, [name])
    try:
        assert EXPERIMENTS[name](study).measures
    except LACKING as reason:
        return type(reason)
    return None


MOVERS = circuit_of_classes({"name mover": ["3.3", "4.6"], "S-inhibition": ["2.0"]})
OWN = Circuit(
    {"3.3": "END", "0.5": "B1"},
    {"name mover (reads B1)": ["3.3"], "B1 from B1": ["0.5"]},
    [("0.5", "3.3.v"), ("3.3", "logits")],
)
UNCLASSED = Circuit({"3.3": "END", "0.5": "B1"})


@pytest.mark.parametrize(
    ("circuit", "runs"),
    [
        (None, BARE),
        (MOVERS, BARE | OF_CIRCUIT | {"E6", "E13", "E16", "E22"}),
        (OWN, BARE | OF_CIRCUIT | {"E6", "E16", "E22"}),
        (UNCLASSED, BARE | OF_CIRCUIT),
    ],
    ids=["none", "S-inhibition", "others tell", "no classes"],
)
def test_what_runs_on_prompts_of_another_task(circuit: Circuit | None, runs: set[str]) -> None:
    study = Study.of_prompts(load("demo"), lists(), circuit, quick=True)
    found = {name: outcome(study, name) for name in EXPERIMENTS if name != "D"}
    assert {name for name, lack in found.items() if lack is None} == runs
    assert {name for name, lack in found.items() if lack is NeedsRoles} >= set(ROLES)
    assert NeedsTokenizer not in found.values()


def test_what_is_missing_is_named() -> None:
    study = Study.of_prompts(load("demo"), lists(), MOVERS, quick=True)
    for name, role in (("E2", "IO"), ("E8", "S2"), ("E9", "IO"), ("E11", "S2"), ("E15", r"S1\+1")):
        with pytest.raises(NeedsRoles, match=f"no role '{role}', only A1, B1, C1, D1, END"):
            EXPERIMENTS[name](study)
    with pytest.raises(NeedsRoles, match="no role 'S2'"):
        Study.of_prompts(reading_model(), lists(), published_circuit())
    unclassed = Study.of_prompts(load("demo"), lists(), UNCLASSED, quick=True)
    with pytest.raises(NeedsCircuit, match=r"heads without a class, such as 0\.5"):
        EXPERIMENTS["E22"](unclassed)


def test_a_model_without_a_tokenizer_and_prompts_without_forms() -> None:
    model = reading_model()
    mute = GPT2(model.config, model.weights)
    pairs = replace(ioi_prompts(model.tokenizer, 12), forms=None)
    study = Study.of_prompts(mute, pairs, published_circuit(), quick=True)
    found = {name: outcome(study, name) for name in EXPERIMENTS if name != "D"}
    assert {name for name, lack in found.items() if lack is NeedsTokenizer} == DRAWING
    assert {name for name, lack in found.items() if lack is not None} == DRAWING
    with pytest.raises(NeedsTokenizer, match="the model has no tokenizer"):
        EXPERIMENTS["E24"](study)


def test_a_circuit_is_found_whatever_its_roles_are_called() -> None:
    """The model made by hand, whose prompts have other roles and no forms."""
    pairs = hand_made_pairs()
    places = {OTHER_NAMES[role]: at for role, at in pairs.positions.items()}
    study = Study.of_prompts(
        hand_made_model(), replace(pairs, positions=places, forms=None), quick=True
    )
    finding = EXPERIMENTS["D"](study)
    meant = {(head, OTHER_NAMES[role]) for head, role in hand_made_circuit().nodes}
    assert set(finding.circuit.nodes) <= meant and len(finding.circuit.nodes) >= 5
    movers = [heads for name, heads in finding.circuit.classes.items() if "name mover" in name]
    assert CLASSES["name mover"][0] in {str(head) for heads in movers for head in heads}
    known = study.with_circuit(finding.circuit)
    shown = {one.name: one.value for one in EXPERIMENTS["E20"](known).measures}
    how = {"source": "mean", "mean_pairs": study.pairs}
    alone = evaluate(study.model, study.pairs, finding.circuit, [[]], **how).faithfulness
    assert shown["F(C)/F(M)"] == pytest.approx(alone.share)


def test_a_metric_of_ones_own_reaches_the_calls() -> None:
    model = load("demo")
    pairs = ioi_prompts(model.tokenizer, 8)

    def many(logits: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        return logits.softmax(-1)[:, :200].sum(1) - logits.softmax(-1)[:, 200:].sum(1)

    circuit = circuit_of_classes({"name mover": ["1.6"], "S-inhibition": ["0.3"]})
    study = Study.of_prompts(model, pairs, circuit, quick=True, metric=many)
    sweep = path_patch(model, pairs, metric=many)
    (base,) = [one.value for one in EXPERIMENTS["E1"](study).measures if one.name == "F(M)"]
    assert base == pytest.approx(float(sweep.base.double().mean()))
    assert abs(base - float(path_patch(model, pairs).base.mean())) > 1
    (share,) = [one.value for one in EXPERIMENTS["E20"](study).measures if "/" in one.name]
    how = {**study.knocking_out, "metric": many}
    alone = ablate(model, pairs, [{}], base=circuit, **how).base.double().mean()
    assert share == pytest.approx(float(alone / sweep.base.double().mean()), abs=1e-4)
    for name in ("E2", "E3", "E6", "E7", "E9"):
        assert EXPERIMENTS[name](study).measures
    plain = Study.of_prompts(model, pairs, circuit, quick=True)
    assert study.key() != plain.key()


def test_the_command_leaves_out_what_the_prompts_lack(tmp_path, capsys) -> None:
    prompts = [
        {
            "clean": f"Yesterday, {one} and {two} and {one}",
            "corrupt": f"Yesterday, {two} and {one} and {one}",
            "answers": [f" {two}"],
            "wrong_answers": [f" {one}"],
        }
        for one, two in (("Mary", "John"), ("Paul", "Lisa"), ("Kevin", "Sarah"))
    ]
    file = tmp_path / "prompts.json"
    file.write_text(json.dumps({"prompts": prompts, "word_idxs": {"first": 2, "end": 6}}))
    circuit = tmp_path / "circuit.json"
    circuit.write_text(json.dumps({"heads": {"1.6": "END"}, "classes": {"name mover": ["1.6"]}}))
    asked = ["E1", "E2", "E4", "E20", "--prompts", str(file), "--circuit", str(circuit), "--quiet"]
    assert main(["reproduce", *asked, "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    for name in ("E2", "E4"):
        assert f"{name} left out: the prompts have no role 'IO', only first, END" in shown
    assert {path.stem for path in (tmp_path / "out").glob("E*.json")} == {"E1", "E20"}
