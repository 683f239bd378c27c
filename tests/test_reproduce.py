"""The paper's experiments by one command: every one on a model of twelve by twelve heads, verdicts
for GPT-2 small alone, and nothing run twice."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_models import reading_model
from written_prompts import write_prompts

from ioi_fast import GPT2, ablate, explain, load, load_prompts, path_patch
from ioi_fast.asked.circuit_files import load_circuit
from ioi_fast.cli import main
from ioi_fast.ioi.circuits import BACKUPS, published_circuit
from ioi_fast.ioi.costs import predicted_flops
from ioi_fast.ioi.evaluation import evaluate
from ioi_fast.ioi.experiments import EXPERIMENTS, TOGETHER, named
from ioi_fast.ioi.finding import Finding
from ioi_fast.ioi.published_figures import PUBLISHED
from ioi_fast.ioi.signals import signal_table
from ioi_fast.ioi.study import NeedsCircuit, Study
from ioi_fast.ioi.verdicts import AmongHeads, Measure, Near, Scale, Within
from ioi_fast.report.figures import AttentionMap, BarList, HeatMap, Page, Scatter, Table
from ioi_fast.report.figures_json import figure_from_dict, figure_to_dict
from ioi_fast.report.page import render


@pytest.fixture(scope="module")
def model() -> GPT2:
    return reading_model()


@pytest.fixture(scope="module")
def study(model: GPT2) -> Study:
    return Study.drawn_from(model, published_circuit(), n=12, quick=True)


@pytest.fixture(scope="module")
def findings(study: Study) -> dict[str, Finding]:
    # The search is for models that do the task.
    return {name: run(study) for name, run in EXPERIMENTS.items() if name != "D"}


def test_every_experiment_gives_figures(findings: dict[str, Finding]) -> None:
    for name, finding in findings.items():
        assert finding.experiment == name and finding.measures
        for one in finding.measures:
            assert one.verdict in ("", "not applicable to this model")
            assert isinstance(one.value, str) or one.value == one.value, (name, one)
        page = Page("", "", [finding.table(), *finding.figures])
        assert finding.title in render(page)
    everything = {*EXPERIMENTS, *TOGETHER}
    assert everything >= {f"E{number}" for number in range(1, 26)}


def value(findings: dict[str, Finding], experiment: str, name: str) -> object:
    (found,) = [one.value for one in findings[experiment].measures if one.name == name]
    return found


def test_figures_are_those_of_the_calls(model, study, findings) -> None:
    sweep = path_patch(model, study.pairs)
    heads = [row.sender for row in sorted(sweep.ranking(), key=lambda row: row.effect)]
    assert value(findings, "E1", "largest drops") == ", ".join(heads[:3])
    assert value(findings, "E1", "largest rises") == ", ".join(heads[::-1][:2])
    receivers = [f"{head}.v" for head in ("7.3", "7.9", "8.6", "8.10")]
    values = path_patch(model, study.pairs, "heads", receivers, "S2").ranking()
    drops = [row.sender for row in values if row.effect < 0]
    assert value(findings, "E11", "largest drops") == ", ".join(drops[:4])
    circuit = evaluate(
        model, study.pairs, published_circuit(), [[]], mean_pairs=study.mean_pairs
    ).faithfulness
    assert value(findings, "E20", "F(C)/F(M)") == pytest.approx(circuit.share)
    (behind,) = findings["E20"].figures
    forms = study.mean_pairs.forms.tolist()
    assert {row[0]: row[2] for row in behind.rows} == {str(f): forms.count(f) for f in set(forms)}
    inhibition = ["7.3", "7.9", "8.6", "8.10"]
    table = signal_table(model, model.tokenizer, inhibition, **study.drawn)
    inverted = value(findings, "E9", "F with token -1, position -1")
    assert inverted == pytest.approx(float(table.mean[2, 1]))


def test_verdicts_and_bounds() -> None:
    small, other = Scale(10, True), Scale(10, False)
    near, above = Near(3.56, 0.15), Within("> 0.4", low=0.4)
    assert small.measure("a", 3.5, near).verdict == "agrees"
    assert small.measure("a", 3.9, near).verdict == "differs"
    assert small.measure("a", float("nan"), near).verdict == "differs"
    assert small.measure("a", 0.5, above).verdict == "agrees"
    assert small.measure("a", 0.3, above).verdict == "differs"
    assert Within("0.1 to 0.2", low=0.1, high=0.2).accepted == "≥ 0.1, ≤ 0.2"
    assert small.measure("a", ["9.9", "1.1"], AmongHeads("9.9")).verdict == "agrees"
    assert small.measure("a", ["1.1"], AmongHeads("9.9")).verdict == "differs"
    assert AmongHeads("9.9, 9.6", least=1).accepted == "1 of them"
    assert AmongHeads("9.9, 9.6", least=1).accepts(["9.9", "1.1"])
    assert AmongHeads("9.9, 9.6").accepted == "all of them"
    assert small.plain("a", 1.0) == Measure("a", 1.0, 10)
    assert other.measure("a", 3.56, near).verdict == "not applicable to this model"
    worded = Scale(10, True, own_wording=True)
    assert worded.measure("a", 3.5, near).verdict == "agrees (own wording)"
    assert worded.measure("a", ["1.1"], AmongHeads("9.9")).verdict == "differs (own wording)"
    assert Scale(10, False, True).measure("a", 1, near).verdict == "not applicable to this model"


def test_every_published_figure_stands_beside_a_measure(findings) -> None:
    for name, rows in PUBLISHED.items():
        shown = {(one.published, one.tolerance) for one in findings[name].measures}
        assert shown - {("", "")} == {(row.text, row.accepted) for row in rows.values()}
    backups = published_circuit().classes[BACKUPS]
    grew = PUBLISHED["E16"]["heads of more than 2 % that grew"]
    assert grew.heads == list(map(str, backups))


def test_names_of_experiments() -> None:
    assert named([]) == list(EXPERIMENTS)
    assert named(["e5", "E1", "E4", "E23"]) == ["E1", "E4", "E20"]
    with pytest.raises(ValueError, match=r"experiments are F, E1, .*, got 'E99'"):
        named(["E1", "E99"])


def test_classes_that_are_not_known(model) -> None:
    bare = Study.drawn_from(model, n=4)
    with pytest.raises(NeedsCircuit, match="no heads of class 'name mover' are known"):
        EXPERIMENTS["E6"](bare)
    with pytest.raises(NeedsCircuit, match="no circuit is known: name one"):
        EXPERIMENTS["E21"](bare)
    assert EXPERIMENTS["E1"](bare).measures


def test_a_key_is_of_all_that_results_depend_on(model, study) -> None:
    def key(**changed: object) -> str:
        asked = {"n": 12, "quick": True, **changed}
        circuit = asked.pop("circuit", published_circuit())
        return Study.drawn_from(model, circuit, **asked).key()

    assert key() == study.key() == key(threads=1)
    changes = ({"n": 13}, {"seed": 1}, {"quick": False}, {"precision": "bf16"}, {"circuit": None})
    assert len({key(), *(key(**one) for one in changes)}) == 6


@pytest.mark.parametrize(
    "figure",
    [
        HeatMap("a", "b", [[1.0, None]], [[0.1, None]], ["0"], ["0", "1"], marked={(0, 1)}),
        BarList("a", "b", ["x", "y"], [1.0, -2.0], stderr=[0.1, 0.2], unit="u"),
        Table("a", "b", ["x"], [[1], ["two"], [None]]),
        Scatter("a", "b", [1.0, 2.0], [0.5, -1.0], ["p", "q"], ["g", "h"], "x", "y", True),
        AttentionMap("a", ["The", " end"], [0.25, 0.75], head="1.1", roles={"END": 1}),
    ],
)
def test_figures_go_through_json(figure) -> None:
    assert figure_from_dict(json.loads(json.dumps(figure_to_dict(figure)))) == figure


def test_no_figure() -> None:
    with pytest.raises(ValueError, match=r"a figure must be one of HeatMap, .*, got 'Pie'"):
        figure_from_dict({"kind": "Pie"})


@pytest.fixture
def circuit(tmp_path: Path) -> str:
    classes = {"name mover": ["1.6", "1.5"], "S-inhibition": ["0.3"]}
    heads = {"1.6": "END", "1.5": "END", "0.3": "END"}
    path = tmp_path / "circuit.json"
    path.write_text(json.dumps({"heads": heads, "classes": classes}))
    return str(path)


def test_the_command_and_what_it_does_not_run_again(circuit, tmp_path, capsys, monkeypatch) -> None:
    out = tmp_path / "out"
    asked = ["reproduce", "E1", "E6", "E15", "E24", "--n", "8", "--quiet", "--out", str(out)]
    assert main([*asked, "--circuit", circuit]) == 0
    predicted, shown = capsys.readouterr().out.split("\n", 1)
    assert re.match(r"predicted: about [\d,]+ GFLOP for 4 experiments, \d+ s", predicted)
    assert "E6: heads to the queries of name mover heads" in shown
    assert "E15 left out: the circuit has no heads of class 'induction'" in shown
    files = {name: (out / f"{name}.json").read_text() for name in ("E1", "E6", "E24")}
    assert "heads to the logits" in (out / "report.html").read_text()

    ran: list[str] = []
    for name, experiment in list(EXPERIMENTS.items()):
        counted = lambda study, name=name, run=experiment: ran.append(name) or run(study)  # noqa: E731
        monkeypatch.setitem(EXPERIMENTS, name, counted)
    assert main([*asked, "--circuit", circuit]) == 0
    assert capsys.readouterr().out == shown and ran == ["E15"]
    assert files == {name: (out / f"{name}.json").read_text() for name in files}
    (out / "E6.json").unlink()
    assert main([*asked, "--circuit", circuit]) == 0 and ran == ["E15", "E6", "E15"]
    (out / "E6.json").write_text("{")
    assert main([*asked, "--circuit", circuit]) == 2 and (out / "E6.json").read_text() == "{"
    assert f"{out / 'E6.json'} is not valid JSON" in capsys.readouterr().err
    (out / "E6.json").unlink()
    del ran[3:]
    assert main([*asked, "--seed", "1", "--circuit", circuit]) == 0
    assert ran[3:] == ["E1", "E6", "E15", "E24"]


@pytest.mark.slow
def test_a_circuit_is_found_where_none_is_named(tmp_path, capsys) -> None:
    """On the bundled model: heads that others stand in for, and roles that were found."""
    out = tmp_path / "out"
    asked = ["reproduce", "E6", "E8", "E11", "E15", "E20", "--quick", "--n", "16", "--quiet"]
    assert main([*asked, "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "E15 left out: the circuit has no heads of class 'induction'" in shown
    assert "E11 left out: END-1 from S2 heads at END-1 are in the first layer" in shown
    found = load_circuit(out / "circuit.json")
    assert {("0.5", "END-1"), ("1.6", "END")} <= {(str(h), role) for h, role in found.nodes}
    assert "E8: what END-1 from S2 heads at END-1 attend to" in shown
    page = (out / "report.html").read_text()
    assert "Faithfulness against size" in page and "Left out" in page
    files = {name: (out / f"{name}.json").read_text() for name in ("D", "E8", "E20")}
    assert main([*asked, "--out", str(out)]) == 0
    assert files == {name: (out / f"{name}.json").read_text() for name in files}
    assert "predicted" not in capsys.readouterr().out, "all is known already"
    file = str(out / "circuit.json")
    assert main(["ablate", "--circuit", file, "--variants", "1.6@END", "--n", "14", "--quiet"]) == 0
    assert "END-1" not in capsys.readouterr().err


def test_what_has_no_circuit_is_left_out(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("ioi_fast.commands.options.load", lambda *_, **__: reading_model())
    asked = ["reproduce", "E1", "E6", "--quick", "--n", "12", "--quiet", "--out", str(tmp_path)]
    assert main(asked) == 0
    shown = capsys.readouterr().out
    assert "D left out: pairs: the model must prefer the answers" in shown
    assert "E6 left out: no heads of class 'name mover' are known" in shown
    assert (tmp_path / "E1.json").exists() and not (tmp_path / "circuit.json").exists()


def test_costs_are_told_in_sweeps(model, study) -> None:
    sweep = explain(path_patch, model, study.pairs).flops
    assert predicted_flops(study, ["E1"]) == predicted_flops(study, ["E1", "E9"]) - int(1.9 * sweep)
    costs = {name: predicted_flops(study, [name]) for name in EXPERIMENTS}
    assert all(cost > 0 for cost in costs.values())
    assert costs["E21"] > costs["E22"] > costs["E20"] > costs["E1"] == sweep
    assert predicted_flops(replace(study, quick=False), ["E21"]) > 5 * costs["E21"]


def test_a_sweep_of_an_experiment_is_what_its_calls_plan(model, study) -> None:
    def sweeps(call, **asked: object) -> float:
        one = explain(path_patch, model, study.pairs).flops
        return explain(call, model, study.pairs, **asked).flops / one

    how = {"source": "mean_by_form", "mean_pairs": study.mean_pairs, "variants": [{}]}
    receivers = [f"{head}.v" for head in ("7.3", "7.9", "8.6", "8.10")]
    planned = {
        "E11": sweeps(path_patch, receivers=receivers, position="S2"),
        "E20": sweeps(ablate, base=published_circuit(), **how) + sweeps(ablate, **how),
    }
    for name, number in planned.items():
        told = predicted_flops(study, [name]) / predicted_flops(study, ["E1"])
        assert told / 2 < number < told * 2, name


def test_prompts_from_a_file(circuit, tmp_path) -> None:
    file = write_prompts(tmp_path / "prompts.json", 9, [2, 17])
    asked = ["E1", "E20", "E16", "E19", "--circuit", circuit, "--prompts", str(file)]
    out = tmp_path / "out"
    assert main(["reproduce", *asked, "--quiet", "--out", str(out)]) == 0
    model = load("demo")
    pairs = load_prompts(file, model.tokenizer)
    ranked = [row.sender for row in path_patch(model, pairs).ranking() if row.effect < 0]
    measures = json.loads((out / "E1.json").read_text())["measures"]
    assert measures[0]["value"] == ", ".join(ranked[:3]) and measures[0]["prompts"] == 9
    measures = json.loads((out / "E20.json").read_text())["measures"]
    shares = {one["name"]: one["value"] for one in measures}
    truth = evaluate(model, pairs, load_circuit(circuit), [[]], source="mean").faithfulness
    assert shares["F(C)/F(M)"] == pytest.approx(truth.share)
    assert f"prompts are those of {file}" in (out / "report.html").read_text()


def test_a_figure_that_differs_is_an_exit_status(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("ioi_fast.ioi.study.is_gpt2_small", lambda model: True)
    assert main(["reproduce", "F", "--n", "8", "--quiet", "--out", str(tmp_path)]) == 1
    verdicts = [one["verdict"] for one in json.loads((tmp_path / "F.json").read_text())["measures"]]
    assert "differs (own wording)" in verdicts


def test_bad_requests(tmp_path, capsys) -> None:
    out = ["--out", str(tmp_path), "--quiet"]
    for asked, message in (
        (["E99"], "experiments are F, E1,"),
        (["E1", "--circuit", "none.json"], "--circuit: [Errno 2]"),
        (["E6", "--circuit", ""], "--circuit must be published, naive or the name of a file"),
        (["F", "--n", "1"], "reproduce needs at least two prompts"),
        (["F", "--precision", "bf16", "--backend", "reference"], "precision 'bf16'"),
        (["E6", "--circuit", "published"], "--circuit: head 10 of 0.10 is out of range"),
        (["E1", "--n", "0"], None),
    ):
        if message is None:
            with pytest.raises(SystemExit):
                main(["reproduce", *asked, *out])
            continue
        assert main(["reproduce", *asked, *out]) == 2
        assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir()) and torch.get_num_threads()
