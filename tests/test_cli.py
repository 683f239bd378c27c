"""The commands as a user types them: what they print, write and refuse."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from browser import check_clean, find_browser, look_at
from compare import assert_close

from ioi_fast import ablate, load, path_patch
from ioi_fast.cli import main
from ioi_fast.commands import demo, demo_study
from ioi_fast.ioi.dataset import ioi_prompts

SMALL = ["--n", "6", "--threads", "1"]


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, str, Path, dict]:
    """One run of the demo: exit status, what it printed, its page and its figures."""
    from contextlib import redirect_stdout
    from io import StringIO

    folder, printed = tmp_path_factory.mktemp("demo"), StringIO()
    with redirect_stdout(printed):
        status = main(
            ["demo", *SMALL, "--checks", "3", "--out", str(folder), "--json", f"{folder}/d.json"]
        )
    figures = json.loads((folder / "d.json").read_text())
    return status, printed.getvalue(), folder / "report.html", figures


def test_demo_prints_the_answer_and_the_check(demo_run) -> None:
    status, printed, page, figures = demo_run
    assert status == 0
    for expected in ("Heads to logits", "Strongest senders", "attends to", "fast = slow", "±"):
        assert expected in printed
    assert f"report written: {page}" in printed
    effects = torch.tensor(figures["to_logits"]["effect"]).flatten()
    strongest = figures["to_logits"]["senders"][int(effects.abs().argmax())]
    assert re.search(rf"Strongest senders to the logits\n\s*{re.escape(strongest)} ", printed)


def test_demo_figures_are_those_of_the_calls(demo_run) -> None:
    _, _, _, figures = demo_run
    model = load("demo")
    pairs = ioi_prompts(model.tokenizer, n=6, seed=0)
    result = path_patch(model, pairs)
    assert figures["to_logits"]["senders"] == list(result.senders)
    assert_close(torch.tensor(figures["to_logits"]["values"]), result.values, 1e-5)
    assert figures["provenance"]["token_hash"] == pairs.token_hash()
    assert figures["provenance"]["weight_hash"] == model.weight_hash()
    assert figures["provenance"]["seed"] == 0 and figures["provenance"]["forms"] == "mixed14"
    check = figures["check"]
    assert check["agrees"] and 0 < check["error"] <= check["allowed"] == 1e-4
    assert check["fast"] == pytest.approx(check["slow"], abs=1e-4)
    assert figures["behaviour"]["n"] == 6
    for head in figures["movers"]:
        assert dict(zip(result.senders, result.effect.flatten(), strict=True))[head] < 0


def test_demo_page_in_a_browser(demo_run, tmp_path: Path) -> None:
    browser = find_browser()
    if browser is None:
        pytest.skip("no headless browser: install chromium-headless-shell or chromium")
    _, _, page, figures = demo_run
    ask = """(answer) => {
      const all = (selector) => [...document.querySelectorAll(selector)];
      answer.cells = all(".cell").length;
      answer.title = document.querySelector("h1").textContent;
      answer.text = document.body.textContent;
    }"""
    look = look_at(page, browser=browser, scratch=tmp_path, ask=ask)
    check_clean(look)
    maps = 2 if figures["to_queries"] else 1
    L, H = len(figures["to_logits"]["effect"]), len(figures["to_logits"]["effect"][0])
    assert look.answer["cells"] == maps * L * H
    assert figures["provenance"]["weight_hash"] in look.answer["text"]
    assert "fast = slow" in look.answer["text"]


def test_demo_fails_when_fast_and_slow_differ(monkeypatch, tmp_path, capsys) -> None:
    """A planted fault of one part in a thousand in the fast sweep."""

    def wrong(model, pairs, senders="heads", *rest, backend="auto", **more):
        result = path_patch(model, pairs, senders, *rest, backend=backend, **more)
        if backend != "reference":
            result.values.mul_(1.001)
        return result

    monkeypatch.setattr(demo_study, "path_patch", wrong)
    assert main(["demo", *SMALL, "--checks", "2", "--out", str(tmp_path)]) == 1
    assert "FAST AND SLOW DIFFER" in capsys.readouterr().out


def test_stopping_leaves_no_part_of_a_file(monkeypatch, tmp_path, capsys) -> None:
    def stop(*arguments, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "run_study", stop)
    assert main(["demo", *SMALL, "--out", str(tmp_path / "new")]) == 130
    assert "stopped" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_path_patch_of_chosen_senders(tmp_path, capsys) -> None:
    written = tmp_path / "r.json"
    options = [
        "--senders",
        "0.1,mlp0,1.0+1.1",
        "--json",
        str(written),
        "--out",
        f"{tmp_path}/p.html",
    ]
    assert main(["path-patch", *SMALL, *options, "--between", "nothing"]) == 0
    figures = json.loads(written.read_text())
    assert figures["senders"] == ["0.1", "mlp0", "1.0+1.1"]
    assert figures["provenance"]["definition"]["between"] == "nothing"
    assert "<html" in (tmp_path / "p.html").read_text()
    assert "1.0+1.1" in capsys.readouterr().out


def test_path_patch_to_receivers_under_knock_outs(tmp_path, capsys) -> None:
    written = tmp_path / "r.json"
    options = ["--senders", "0.1,0.2", "--receivers", "1.0.q,mlp2", "--position", "all"]
    options += ["--knock-out", "0.3@END,mlp0@all", "--knock-out-source", "mean_by_form"]
    assert main(["path-patch", *SMALL, *options, "--json", str(written)]) == 0
    assert capsys.readouterr().err == ""
    model = load("demo")
    truth = path_patch(
        model,
        ioi_prompts(model.tokenizer, n=6, seed=0),
        ["0.1", "0.2"],
        ["1.0.q", "mlp2"],
        None,
        knock_out={"0.3": "END", "mlp0": "all"},
        knock_out_source="mean_by_form",
        backend="reference",
        precision="fp64",
    )
    assert_close(torch.tensor(json.loads(written.read_text())["values"]), truth.values)


def test_ablate_every_head_is_a_heat_map(tmp_path, capsys) -> None:
    files = ["--json", str(tmp_path / "a.json"), "--out", str(tmp_path / "a.html")]
    assert main(["ablate", *SMALL, *files]) == 0
    printed = capsys.readouterr().out
    assert "ablated, source mean" in printed and "48 variants x 6 prompts" in printed
    figures = json.loads((tmp_path / "a.json").read_text())
    model = load("demo")
    pairs = ioi_prompts(model.tokenizer, n=6, seed=0)
    heads = [{f"{layer}.{head}": "all"} for layer in range(6) for head in range(8)]
    expected = ablate(model, pairs, heads, backend="reference", precision="fp64")
    assert_close(torch.tensor(figures["values"]), expected.values)
    assert figures["senders"] == list(expected.senders)
    assert "<html" in (tmp_path / "a.html").read_text()


def test_ablate_every_mlp(tmp_path, capsys) -> None:
    written = tmp_path / "a.json"
    chosen = ["--variants", "mlps", "--source", "zero", "--position", "END"]
    assert main(["ablate", *SMALL, *chosen, "--json", str(written)]) == 0
    assert "6 variants x 6 prompts" in capsys.readouterr().out
    result = json.loads(written.read_text())
    assert result["senders"] == [f"mlp{layer}@END" for layer in range(6)]
    assert len(result["effect"]) == 6


def test_ablate_sets_in_a_circuit(capsys) -> None:
    chosen = ["--circuit", "1.6@END,1.5@END,0.3@S2", "--variants", "1.6@END", "1.6@END,1.5@END"]
    assert main(["ablate", *SMALL, *chosen, "--source", "zero", "--metric", "prob"]) == 0
    printed = capsys.readouterr().out
    assert "1.6@END+1.5@END" in printed and "2 variants x 6 prompts" in printed
    assert main(["ablate", *SMALL, "--variants", "1.6"]) == 2
    assert "--variants: expected NODE@ROLE" in capsys.readouterr().err


def test_a_metric_without_a_percentage_is_valid_json(tmp_path) -> None:
    written = tmp_path / "r.json"
    assert main(["path-patch", *SMALL, "--metric", "kl", "--json", str(written)]) == 0

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    figures = json.loads(written.read_text(), parse_constant=refuse)
    assert figures["provenance"]["seed"] == 0


@pytest.mark.slow
def test_demo_in_float64(tmp_path, capsys) -> None:
    options = ["--n", "3", "--checks", "1", "--precision", "fp64", "--out", str(tmp_path)]
    assert main(["demo", *options]) == 0
    printed = capsys.readouterr().out
    assert "nothing fast ran" in printed and "fast = slow" not in printed


def test_plan_runs_nothing(capsys, monkeypatch) -> None:
    monkeypatch.setattr("ioi_fast.calls.path_patch.fast_path_patch", None)
    assert main(["path-patch", *SMALL, "--plan"]) == 0
    printed = capsys.readouterr().out
    assert "wave rows" in printed and "floor" in printed and "MiB" in printed


def test_prompts_from_a_file(tmp_path, capsys) -> None:
    path = tmp_path / "prompts.json"
    record = {
        "clean": "Then, Mary and John went to the store. John gave a ring to",
        "corrupt": "Then, Adam and Kelly went to the store. Brian gave a ring to",
        "answers": [" Mary"],
        "wrong_answers": [" John"],
    }
    path.write_text(json.dumps({"prompts": [record, record]}))
    assert main(["path-patch", "--prompts", str(path)]) == 0
    assert "48 senders x 2 prompts" in capsys.readouterr().out
    # What draws prompts is not left unheard beside a file of them.
    assert main(["path-patch", "--prompts", str(path), "--n", "1", "--seed", "3"]) == 2
    assert "--n and --seed would draw prompts" in capsys.readouterr().err


def test_doctor(capsys) -> None:
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(re.match(r"ok +backend reference", line) for line in lines)
    assert any(re.match(r"ok +backend cpu", line) for line in lines)
    assert any("backend triton" in line and line.startswith("no") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--senders", "9.99"], "senders"),
        (["--senders", "0.1,0.1"], "0.1 is there twice"),
        (["--receivers", "0.1"], "receivers"),
        (["--position", "S7"], "no role 'S7'"),
        (["--knock-out", "0.1"], "NODE@ROLE"),
        (["--knock-out", "0.1@END,0.1@S2"], "0.1 is there twice"),
        (["--knock-out", ""], "--knock-out: expected NODE@ROLE"),
        (["--knock-out-source", "zero"], "--knock-out-source is that of --knock-out"),
        (["--json", "/tmp/one", "--out", "/tmp/one"], "/tmp/one is asked for twice"),
        (["--model", "/nowhere/at/all"], "/nowhere/at/all"),
        (["--prompts", "/nowhere/prompts.json"], "/nowhere/prompts.json"),
        (["--backend", "triton"], "triton"),
        (["--max-memory", "1k"], "max_memory"),
    ],
)
def test_bad_input_ends_with_one_line(arguments, message, capsys) -> None:
    assert main(["path-patch", *SMALL, *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--circuit", ""], "--circuit: expected NODE@ROLE"),
        (["--variants", "1.6@END", "--position", "S2"], "--position is for 'heads' and 'mlps'"),
        (["--position", "FOO"], "--position must be one of all, "),
        (["--prompts", "/nowhere/p.json"], "--prompts /nowhere/p.json can't be read: No such file"),
        (["--variants", "heads", "mlps"], "--variants: 'heads' stands alone"),
        (["--circuit", "1.6@END,L1H6@S2"], "--circuit: heads: 1.6 is there twice"),
        (["--plan", "--json", "a.json"], "--plan prints the plan"),
    ],
)
def test_ablate_refuses_what_it_would_ignore(arguments, message, capsys) -> None:
    assert main(["ablate", *SMALL, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_circuits_by_name_and_from_files(tmp_path, capsys) -> None:
    path = tmp_path / "circuit.json"
    path.write_text('{"heads": {"1.6": "END", "0.3": "S2"}}')
    small = ["ablate", "--n", "4", "--variants", "1.6@END", "--quiet", "--json"]
    values = []
    for index, circuit in enumerate((str(path), "1.6@END,0.3@S2")):
        written = tmp_path / f"{index}.json"
        assert main([*small, str(written), "--circuit", circuit]) == 0
        values.append(json.loads(written.read_text())["values"])
    assert values[0] == values[1]
    capsys.readouterr()
    for circuit, message in (
        ("published", "base: head 10 of 0.10 is out of range: a layer has 8 heads"),
        ("naive", "base: head 10 of 0.10 is out of range"),
        (str(tmp_path / "none.json"), "--circuit: [Errno 2] No such file"),
    ):
        assert main([*small, str(tmp_path / "x.json"), "--circuit", circuit]) == 2
        assert f"ioi-fast ablate: {message}" in capsys.readouterr().err


def test_the_empty_circuit_has_a_name(tmp_path) -> None:
    written = tmp_path / "r.json"
    chosen = ["--circuit", "none", "--variants", "mlp5@END", "--json", str(written)]
    assert main(["ablate", *SMALL, *chosen]) == 0
    assert json.loads(written.read_text())["provenance"]["definition"]["base"] == "Circuit()"


def test_plans_are_printed_and_nothing_runs(capsys) -> None:
    for command, expected in (
        (["path-patch"], "path patch to the logits"),
        (["ablate", "--circuit", "1.6@END,0.3@S2"], "reruns over a circuit of 2 heads"),
        (["pairs", "--inputs", "q", "v"], "960 pairs of heads x q, v"),
    ):
        assert main([*command, *SMALL, "--plan"]) == 0
        printed = capsys.readouterr().out
        assert expected in printed and "floor" in printed and "prompts in" not in printed


def test_pairs(tmp_path, capsys) -> None:
    files = ["--json", str(tmp_path / "p.json"), "--out", str(tmp_path / "p.html")]
    chosen = ["--n", "3", "--threads", "1", "--inputs", "v", "--position", "END"]
    assert main(["pairs", *chosen, "--between", "mlps", "--per-prompt", *files]) == 0
    printed = capsys.readouterr().out
    assert "960 paths x 3 prompts" in printed and "Strongest path into each head" in printed
    model = load("demo")
    pairs = ioi_prompts(model.tokenizer, n=3, seed=0)
    figures = json.loads((tmp_path / "p.json").read_text())
    one = path_patch(model, pairs, "heads", ["5.1.v"], "END", backend="reference", precision="fp64")
    values = torch.tensor(figures["values"])[0, :, :, 5, 1].flatten(0, 1)
    assert_close(values, one.values)
    assert "<html" in (tmp_path / "p.html").read_text()
    assert main(["pairs", *chosen, "--per-prompt"]) == 2
    assert "--per-prompt needs --json" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--n", "0"], ["--max-memory", "lots"], ["--forms", "x"]])
def test_bad_options_show_the_usage(arguments, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["path-patch", *arguments])
    assert stopped.value.code == 2
    assert "usage" in capsys.readouterr().err
