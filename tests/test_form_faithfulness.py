"""The table of faithfulness by form: files as they are published, means over a file's own prompts,
figures beside the published ones, verdicts for GPT-2 small alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from small_models import reading_model
from written_prompts import write_prompts

from ioi_fast import GPT2, GPT2Config, ablate, load_prompts
from ioi_fast.cli import main
from ioi_fast.ioi.circuits import published_circuit
from ioi_fast.ioi.form_faithfulness import ORDERS, form_faithfulness
from ioi_fast.ioi.published_figures import published_share
from ioi_fast.ioi.verdicts import Near, is_gpt2_small, verdict

PER_FORM = 6


@pytest.fixture(scope="module")
def model() -> GPT2:
    return reading_model()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Three of the thirty files, with one prompt more than is asked for."""
    path = tmp_path_factory.mktemp("prompts")
    for order, template in (("ABBA", 0), ("BABA", 0), ("ABBA", 13)):
        form = template + 15 * (order == "ABBA")
        name = f"ioi_{order}_template_{template}_prompts.json"
        write_prompts(path / name, PER_FORM + 1, [form])
    return path


def test_forms_against_the_reference(model, folder) -> None:
    found = list(form_faithfulness(model, folder, PER_FORM))
    forms = [("ABBA", 0), ("ABBA", 13), ("BABA", 0)]
    assert [(one.bos, one.order, one.template) for one in found] == [
        (bos, *form) for bos in (False, True) for form in forms
    ]
    for one in found:
        path = folder / f"ioi_{one.order}_template_{one.template}_prompts.json"
        pairs = load_prompts(path, model.tokenizer, prepend_bos=one.bos)
        pairs = pairs.select(slice(PER_FORM))
        exact = {"backend": "reference", "precision": "fp64"}
        whole = ablate(model, pairs, [{}], **exact).base.double().mean()
        circuit = ablate(model, pairs, [{}], base=published_circuit(), **exact).base
        share = 100 * float(circuit.double().mean() / whole)
        assert one.prompts == PER_FORM
        assert one.percent == pytest.approx(share, rel=1e-3, abs=0.01)
        assert one.published == published_share(one.bos, one.order, one.template).published
        assert one.verdict == "not applicable to this model"


def test_published_figures() -> None:
    """The means that go with them, of all fifteen templates."""
    for bos, order, mean in (
        (False, "ABBA", 79.0),
        (False, "BABA", 119.0),
        (True, "ABBA", 86.2),
        (True, "BABA", 125.5),
    ):
        shares = [published_share(bos, order, template).published for template in range(15)]
        assert sum(shares) / 15 == pytest.approx(mean, abs=0.06)
    assert ORDERS == ("ABBA", "BABA")


def named(name: str, **sizes: int) -> SimpleNamespace:
    """What the verdicts ask of a model: no weights."""
    return SimpleNamespace(name=name, config=replace(GPT2Config(), **sizes))


def test_verdicts_are_for_gpt2_small() -> None:
    small = named("gpt2")
    assert is_gpt2_small(small)
    assert not is_gpt2_small(named("random-0"))
    assert not is_gpt2_small(named("gpt2", n_layer=6))
    near = Near(80.0, 0.01)
    assert near.accepts(80.005) and near.accepts(79.995)
    assert not near.accepts(80.02) and not near.accepts(float("nan"))
    assert verdict(True, applicable=True) == "agrees"
    assert verdict(False, applicable=True) == "differs"
    assert verdict(True, applicable=False) == "not applicable to this model"


def test_a_figure_that_is_not_met_is_said(model, folder, monkeypatch) -> None:
    monkeypatch.setattr("ioi_fast.ioi.form_faithfulness.is_gpt2_small", lambda model: True)
    found = list(form_faithfulness(model, folder, PER_FORM))
    assert {one.verdict for one in found} == {"differs"}
    first = found[0]
    met = Near(first.percent + 0.009, 0.01)
    monkeypatch.setattr("ioi_fast.ioi.form_faithfulness.published_share", lambda *form: met)
    assert next(form_faithfulness(model, folder, PER_FORM)).verdict == "agrees"


def test_folders_and_files_that_do_not_do(model, folder, tmp_path) -> None:
    with pytest.raises(ValueError, match=r"must hold files like ioi_ABBA_template_0_prompts\.json"):
        next(form_faithfulness(model, tmp_path))
    with pytest.raises(ValueError, match=r"prompts\.json must hold at least 50 prompts, got 7"):
        next(form_faithfulness(model, folder))


def test_the_command(folder, tmp_path, capsys) -> None:
    circuit = tmp_path / "circuit.json"
    circuit.write_text('{"heads": {"1.6": "END", "0.3": "S2"}}')
    written = tmp_path / "table.json"
    asked = ["faithfulness", str(folder), "--model", "demo", "--per-form", "5", "--quiet"]
    assert main([*asked, "--circuit", str(circuit), "--json", str(written)]) == 0
    shown = capsys.readouterr().out
    assert "ABBA 13" in shown and "not applicable" in shown and "86.49" in shown
    rows = json.loads(written.read_text())["forms"]
    assert len(rows) == 6 and {row["prompts"] for row in rows} == {5}
    assert main([*asked, "--circuit", "none.json"]) == 2
    assert main(["faithfulness", str(tmp_path), "--model", "demo"]) == 2
    assert main(asked) == 2, "the published circuit has heads that the bundled model lacks"
    assert "head 10 of 0.10 is out of range" in capsys.readouterr().err
