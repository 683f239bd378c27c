"""`ioi-fast reproduce`: the paper's experiments on any model, with published figures beside."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

from ioi_fast.circuit import Circuit
from ioi_fast.commands import options
from ioi_fast.config import GPT2Config
from ioi_fast.ioi.circuits import published_circuit
from ioi_fast.ioi.experiments import EXPERIMENTS, named
from ioi_fast.ioi.finding import Finding, Measure
from ioi_fast.ioi.published import DIFFERS, is_gpt2_small
from ioi_fast.ioi.study import NeedsCircuit, Study
from ioi_fast.model import GPT2
from ioi_fast.report.atomic import write_text
from ioi_fast.report.figures import Page
from ioi_fast.report.figures_json import figure_from_dict, figure_to_dict
from ioi_fast.report.page import write_page
from ioi_fast.report.terminal import print_table
from ioi_fast.revision import revision

_QUICK = 40  # prompts of a quick study


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command and its options."""
    parser = commands.add_parser(
        "reproduce",
        help="the experiments of the paper, with published figures beside measured ones",
        description="Runs experiments of the paper and writes a page, and a JSON file for each. "
        "What was run before with the same model, prompts and circuit is not run again. "
        "Experiments that ask for classes of heads need a circuit: GPT-2 small has its own.",
    )
    known = ", ".join(EXPERIMENTS)
    parser.add_argument("experiments", nargs="*", metavar="EXPERIMENT", help=f"of {known}; all")
    options.add_inputs(parser, n=200)
    parser.add_argument("--circuit", metavar="FILE.json", help="a circuit with classes of heads")
    parser.add_argument("--quick", action="store_true", help=f"{_QUICK} prompts and fewer sets")
    options.add_running(parser)
    parser.add_argument(
        "--out", default="out/reproduce", metavar="DIR", help="folder of the page (out/reproduce)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; 1 when a figure of GPT-2 small differs from the published one."""
    names, folder = named(arguments.experiments), Path(arguments.out)
    page_file = folder / "report.html"
    options.check_outputs(page_file, page=True)
    model = options.read_model(arguments)
    study = _study(arguments, model)
    key, found, left = study.key(), [], []
    for name in names:
        file = folder / f"{name}.json"
        finding = _stored(file, key)
        if finding is None:
            begun = time.perf_counter()
            try:
                finding = EXPERIMENTS[name](study)
            except NeedsCircuit as reason:
                left.append(f"{name} left out: {reason} (--circuit)")
                continue
            _store(file, key, finding, time.perf_counter() - begun)
        found.append(finding)
        print_table(finding.table())
    if found:
        print(f"report written: {write_page(_page(study, found, arguments.prompts), page_file)}")
    print("\n".join(left), end="\n" if left else "")
    return int(any(one.verdict == DIFFERS for finding in found for one in finding.measures))


def _study(arguments: argparse.Namespace, model: GPT2) -> Study:
    circuit = _circuit(arguments, model)
    running = {
        "quick": arguments.quick,
        "backend": arguments.backend,
        "precision": arguments.precision,
        "threads": arguments.threads,
        "progress": options.progress(arguments),
    }
    if arguments.prompts:
        pairs = options.read_prompts(arguments, model)
        return Study.of_prompts(model, pairs, circuit, **running)
    how = options.drawing(arguments)
    if arguments.quick and arguments.n is None:
        how["n"] = _QUICK
    return Study.drawn_from(model, circuit, **how, prepend_bos=arguments.bos, **running)


def _circuit(arguments: argparse.Namespace, model: GPT2) -> Circuit | None:
    circuit = options.circuit_file(arguments.circuit)
    if circuit is None and is_gpt2_small(model):
        return published_circuit()
    return circuit


def _stored(file: Path, key: str) -> Finding | None:
    """What was found with the same key; None for none, and for a file that is none of ours."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if found["key"] != key:
            return None
        measures = tuple(Measure(**one) for one in found["measures"])
        figures = tuple(figure_from_dict(one) for one in found["figures"])
        return Finding(found["experiment"], found["title"], measures, figures)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _store(file: Path, key: str, finding: Finding, seconds: float) -> None:
    found = {
        "experiment": finding.experiment,
        "title": finding.title,
        "key": key,
        "seconds": round(seconds, 3),
        "measures": [asdict(one) for one in finding.measures],
        "figures": [figure_to_dict(one) for one in finding.figures],
    }
    write_text(file, json.dumps(found, indent=1) + "\n")


def _page(study: Study, findings: list[Finding], prompts: str | None) -> Page:
    model, config = study.model, study.model.config
    lead = (
        "Experiments of “Interpretability in the Wild” (Wang et al. 2022), measured on "
        f"{model.name}. Verdicts hold published figures of GPT-2 small against its own alone; "
        + (f"prompts are those of {prompts}." if prompts else "the wording of prompts is our own.")
    )
    sections = [part for one in findings for part in (one.table(), *one.figures)]
    shapes = f"{config.n_layer} layers, {config.n_head} heads, width {config.n_embd}"
    if GPT2Config() == config:
        shapes += " (GPT-2 small's)"
    provenance = {
        "model": model.name,
        "shapes": shapes,
        "weights": model.weight_hash(),
        "prompts": study.pairs.token_hash(),
        **study.drawn,
        "prompt file": prompts,
        "prompts behind means": len(study.mean_pairs),
        "circuit": repr(study.circuit) if study.circuit else None,
        "precision": study.running.get("precision"),
        "commit": revision(),
    }
    return Page("The IOI study, again", lead, sections, provenance)
