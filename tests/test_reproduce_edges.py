"""`ioi-fast reproduce` where something is in the way: small models, odd circuits, damaged files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from small_models import reading_model
from written_prompts import write_prompts

from ioi_fast import GPT2, Circuit, GPT2Config, load
from ioi_fast.asked.circuit_files import save_circuit
from ioi_fast.cli import main
from ioi_fast.ioi.circuits import role_of
from ioi_fast.ioi.experiments import EXPERIMENTS
from ioi_fast.ioi.minimality import minimality_sets
from ioi_fast.ioi.paths import mlp_knock_outs
from ioi_fast.ioi.study import Study


def small(**shape: int) -> GPT2:
    """A random model that reads the bundled vocabulary."""
    demo = load("demo")
    sizes = {"n_layer": 2, "n_head": 2, "n_embd": 16, "n_inner": 24, "n_positions": 64, **shape}
    random = GPT2.random(GPT2Config(**sizes, vocab_size=demo.config.vocab_size), seed=0)
    return GPT2(random.config, random.weights, tokenizer=demo.tokenizer, name="random")


def reproduce(monkeypatch, model: GPT2, out: Path, *asked: str) -> int:
    monkeypatch.setattr("ioi_fast.commands.options.load", lambda *_, **__: model)
    return main(["reproduce", *asked, "--quick", "--n", "12", "--quiet", "--out", str(out)])


@pytest.mark.parametrize(
    ("shape", "left"),
    [
        ({"n_layer": 1}, {"E19": "model must have at least two layers, got 1"}),
        ({"n_layer": 2, "n_head": 1}, {}),
        ({"n_positions": 20}, {"E24": "must"}),
    ],
)
def test_one_that_can_not_be_run_leaves_the_others(
    shape, left, monkeypatch, tmp_path, capsys
) -> None:
    asked = ["F", "E1", "E17", "E19", "E24", "E25"]
    assert reproduce(monkeypatch, small(**shape), tmp_path, *asked) == ("E24" in left)
    shown = capsys.readouterr().out
    for name in asked:
        reason = f"{name} left out: "
        assert (reason in shown) == (name in left)
        assert (tmp_path / f"{name}.json").exists() == (name not in left)
    for name, reason in left.items():
        assert reason in shown.partition(f"{name} left out: ")[2].splitlines()[0]
    assert (tmp_path / "report.html").exists()


def test_all_mlps_but_the_first_of_two() -> None:
    model = small()
    study = Study.drawn_from(model, n=6)
    found = mlp_knock_outs(model, study.pairs, **study.knocking_out)
    assert found.alone.shape == (2, 6) and torch.equal(found.all_but_first, found.alone[1])


@pytest.mark.parametrize("forms", ["mixed14", "all30"])
@pytest.mark.parametrize("seed", range(4))
def test_every_form_has_prompts_behind_its_mean(forms: str, seed: int) -> None:
    study = Study.drawn_from(load("demo"), n=10, seed=seed, forms=forms)
    counts = [
        dict(zip(*(x.tolist() for x in one.forms.unique(return_counts=True)), strict=True))
        for one in (study.pairs, study.mean_pairs)
    ]
    assert counts[1] == {form: 4 * count for form, count in counts[0].items()}
    said = {tuple(row) for row in study.pairs.orig.tolist()}
    assert not said & {tuple(row) for row in study.mean_pairs.orig.tolist()}, "others"


def test_a_class_stands_where_its_heads_all_are(tmp_path) -> None:
    """Whatever the order of a head's roles, and whoever comes first."""
    model, found = load("demo"), []
    for roles in (["END-1", "S2"], ["S2", "END-1"]):
        heads = {"0.2": ["S2", "END-1"], "0.5": roles, "1.6": "END"}
        classes = {"name mover (reads END-1)": ["1.6"], "END-1 from S2": ["0.2", "0.5"]}
        circuit = Circuit(heads, classes, [("0.5", "1.6.v"), ("0.2", "1.6.v")])
        study = Study.drawn_from(model, circuit, n=12)
        found.append([EXPERIMENTS[name](study).measures for name in ("E8", "E9")])
        assert study.tellers().role == "END-1"
    assert found[0] == found[1]
    with pytest.raises(ValueError, match="name must be a class with heads, got 'none'"):
        role_of(Circuit({"0.5": "S2"}, {"none": []}), "none")


def test_a_head_of_two_classes_is_one_head() -> None:
    heads = {"0.2": "S2", "0.5": ["S2", "S1+1"], "1.6": "END"}
    classes = {"duplicate token": ["0.2", "0.5"], "induction": ["0.5"], "name mover": ["1.6"]}
    circuit = Circuit(heads, classes)
    study = Study.drawn_from(load("demo"), circuit, n=6)
    assert study.heads("duplicate token", "induction") == ["0.2", "0.5"]
    sets = {str(head): list(map(str, others)) for head, others in minimality_sets(circuit).items()}
    assert sets == {"0.2": ["0.5"], "0.5": ["0.2"], "1.6": []}


def test_prompts_of_a_file_with_and_without_a_beginning(monkeypatch, tmp_path) -> None:
    file = write_prompts(tmp_path / "prompts.json", 12, [2])
    values = []
    for bos in ([], ["--bos"]):
        out = tmp_path / f"out{len(bos)}"
        asked = ["reproduce", "E24", "--prompts", str(file), "--quiet", "--out", str(out), *bos]
        assert main(asked) == 0
        values.append(json.loads((out / "E24.json").read_text())["measures"][0]["value"])
    pairs = [Study.drawn_from(load("demo"), n=12, prepend_bos=bos) for bos in (False, True)]
    truth = [EXPERIMENTS["E24"](study).measures[0].value for study in pairs]
    assert values == pytest.approx(truth) and values[0] != values[1]


def test_a_named_circuit_is_never_written_over(tmp_path, capsys) -> None:
    file = save_circuit(Circuit({"1.6": "END"}, {"name mover": ["1.6"]}), tmp_path / "circuit.json")
    before = file.read_text()
    out = ["--out", str(tmp_path), "--quiet", "--n", "8"]
    assert main(["reproduce", "D", "E20", "--circuit", str(file), *out]) == 2
    assert "D writes there; name another --out" in capsys.readouterr().err
    assert file.read_text() == before and [one.name for one in tmp_path.iterdir()] == [file.name]
    save_circuit(Circuit({}), file)
    assert main(["reproduce", "E20", "--circuit", str(file), *out]) == 2
    assert "--circuit: it must have at least one head, got none" in capsys.readouterr().err
    file.write_bytes(b"\xff\xfe")
    assert main(["reproduce", "E20", "--circuit", str(file), *out]) == 2
    assert f"{file} is not valid JSON" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("damage", "place"),
    [
        ({"figures": ["x"]}, "figures[0]: a figure must be an object, got 'x'"),
        ({"figures": [{"kind": "Table", "title": 5}]}, "figures[0]: title must be of type str"),
        ({"figures": [{"kind": "BarList", "title": ""}]}, "figures[0]: caption of BarList is miss"),
        ({"figures": {"kind": ["Table"]}}, "figures must be a list, got {'kind': ['Table']}"),
        ({"measures": [{"name": "a", "value": [1], "prompts": 2}]}, "measures[0].value must be"),
        ({"measures": [{"name": "a", "value": 1}]}, "measures[0].prompts is missing"),
        (
            {"measures": [{"name": "a", "value": 1, "prompts": 2, "verdict": 5}]},
            "measures[0].verdict must be str, got 5",
        ),
        ({"measures": [3]}, "measures[0] must be an object, got 3"),
        ({"measures": None}, "measures must be a list, got None"),
        ({"circuit": 3}, "circuit: a circuit must be an object"),
        ({"circuit": {"heads": {"1.6": "all"}}}, "circuit: heads[1.6] must be roles like 'END'"),
        ({"title": []}, "title must be a text, got []"),
        ({"key": None}, "key must be a text, got None"),
        ({"title": 7, "key": "x" * 10**6, "measures": 5}, None),
    ],
)
def test_what_is_no_finding_is_named_and_left_alone(
    damage: dict, place: str | None, monkeypatch, tmp_path, capsys
) -> None:
    model = reading_model()
    assert reproduce(monkeypatch, model, tmp_path, "E1") == 0
    file = tmp_path / "E1.json"
    whole = json.loads(file.read_text())
    damaged = json.dumps(whole | damage)
    file.write_text(damaged)
    if place is None:  # of another study
        assert reproduce(monkeypatch, model, tmp_path, "E1") == 0
        assert {**json.loads(file.read_text()), "seconds": 0} == {**whole, "seconds": 0}
        return
    capsys.readouterr()
    assert reproduce(monkeypatch, model, tmp_path, "E1") == 2
    said = capsys.readouterr().err
    assert f"{file} is no finding: {place}" in said and "move it away" in said
    assert file.read_text() == damaged


@pytest.mark.parametrize("content", ["[" * 100_000, "", "[]", '{"key": NaN}', "{}"])
def test_a_file_that_is_no_finding_is_left_alone(content, monkeypatch, tmp_path, capsys) -> None:
    file = tmp_path / "E1.json"
    file.write_text(content)
    assert reproduce(monkeypatch, reading_model(), tmp_path, "E1") == 2
    said = capsys.readouterr().err
    assert str(file) in said and len(said) < 2000 and file.read_text() == content
