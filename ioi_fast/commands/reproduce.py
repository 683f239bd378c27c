"""`ioi-fast reproduce`: the paper's experiments on any model, with published figures beside."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ioi_fast.asked.circuit import Circuit
from ioi_fast.asked.circuit_files import save_circuit
from ioi_fast.benchmarks.rate import matrix_rate
from ioi_fast.calls.choose_backend import choose
from ioi_fast.commands import options, output
from ioi_fast.commands.finding_files import store, stored
from ioi_fast.commands.output_paths import check_outputs
from ioi_fast.ioi.backwards import NothingToFind
from ioi_fast.ioi.circuits import published_circuit
from ioi_fast.ioi.costs import predicted_flops
from ioi_fast.ioi.dataset import check_drawn
from ioi_fast.ioi.experiments import EXPERIMENTS, TOGETHER, WITHOUT_CIRCUIT, named
from ioi_fast.ioi.finding import Finding
from ioi_fast.ioi.study import LACKING, Study
from ioi_fast.ioi.verdicts import DIFFERS, is_gpt2_small
from ioi_fast.model.config import GPT2Config
from ioi_fast.model.gpt2 import GPT2
from ioi_fast.report.figures import Page, Table
from ioi_fast.report.page import write_page
from ioi_fast.report.terminal import print_table, say
from ioi_fast.results.revision import revision

_QUICK = 40  # prompts of a quick study
CIRCUIT = "circuit.json"


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command and its options."""
    parser = commands.add_parser(
        "reproduce",
        help="the experiments of the paper, with published figures beside measured ones",
        description="Runs experiments of the paper and writes a page, and a JSON file for each. "
        "What was run before with the same model, prompts and circuit is not run again. "
        "Experiments that ask for classes of heads need a circuit: GPT-2 small has its own, for "
        "other models one is found first (D) unless --circuit names one.",
    )
    known = ", ".join([*EXPERIMENTS, *TOGETHER])
    parser.add_argument("experiments", nargs="*", metavar="EXPERIMENT", help=f"of {known}; all")
    options.add_inputs(parser, n=200)
    parser.add_argument(
        "--circuit",
        metavar="CIRCUIT",
        help="a circuit with classes of heads: published, naive or FILE.json",
    )
    parser.add_argument("--quick", action="store_true", help=f"{_QUICK} prompts and fewer sets")
    options.add_running(parser)
    parser.add_argument(
        "--out", default="out/reproduce", metavar="DIR", help="folder of the page (out/reproduce)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; 1 when a figure of GPT-2 small differs from the published one, or when an
    experiment could not be run for another reason than what the study lacks."""
    names, folder = named(arguments.experiments), Path(arguments.out)
    page_file = folder / "report.html"
    if "D" in names and arguments.circuit and _is_file(arguments.circuit, folder / CIRCUIT):
        raise ValueError(f"--circuit {arguments.circuit}: D writes there; name another --out")
    check_outputs(arguments, page_file, *_files(arguments, names, folder), page=True)
    model = options.read_model(arguments)
    choose(model, arguments.backend, arguments.precision, None)  # refuses what can't run
    bare, circuit = _study(arguments, model), _circuit(arguments, model)
    if circuit is None and not WITHOUT_CIRCUIT.issuperset(names):
        names = [name for name in EXPERIMENTS if name in names or name == "D"]
    before = _known(folder, "D", bare, bare) if circuit is None and "D" in names else None
    known = circuit if before is None else before.circuit
    study = bare if known is None else _of_circuit(bare, known)
    _predict(study, [name for name in names if _known(folder, name, bare, study) is None])
    found, left, failed = [], [], False
    for number, name in enumerate(names, 1):
        if options.progress(arguments):
            say(f"{name} ({number} of {len(names)})", sys.stderr)
        finding = _known(folder, name, bare, study)
        if finding is None:
            begun = time.perf_counter()
            own = bare if name in WITHOUT_CIRCUIT else study
            try:
                finding = EXPERIMENTS[name](own)
            except ValueError as reason:
                # One that can't be run on this model or these prompts leaves the others alone.
                left.append((name, str(reason)))
                failed |= not isinstance(reason, (*LACKING, NothingToFind))
                continue
            seconds, file = time.perf_counter() - begun, folder / f"{name}.json"
            keep = partial(store, file, own.key(), finding, seconds)
            output.deliver([("", file, keep)], partial(print_table, finding.table()))
        else:
            print_table(finding.table())
        found.append(finding)
        if finding.circuit is not None:
            say(f"circuit written: {save_circuit(finding.circuit, folder / CIRCUIT)}")
            study = study if circuit is not None else bare.with_circuit(finding.circuit)
    for name, reason in left:
        say(f"{name} left out: {reason}")
    if found:
        page = _page(study, found, left, arguments.prompts)
        say(f"report written: {write_page(page, page_file)}")
    verdicts = (one.verdict for finding in found for one in finding.measures)
    return int(failed or any(verdict.startswith(DIFFERS) for verdict in verdicts))


def _is_file(named: str, file: Path) -> bool:
    return Path(named).resolve() == file.resolve()


def _files(arguments: argparse.Namespace, names: Sequence[str], folder: Path) -> list[Path]:
    """Where findings are kept, and the circuit where one may be found."""
    found = [folder / f"{name}.json" for name in names]
    finds = "D" in names or arguments.circuit is None
    more = [folder / CIRCUIT, folder / "D.json"] if finds else []
    return [*found, *(file for file in more if file not in found)]


def _known(folder: Path, name: str, bare: Study, study: Study) -> Finding | None:
    """What was found before with the same study."""
    return stored(folder / f"{name}.json", (bare if name in WITHOUT_CIRCUIT else study).key())


def _predict(study: Study, names: list[str]) -> None:
    """Says about how long the experiments that have to run will take."""
    flops = predicted_flops(study, names)
    if not flops:
        return
    rate = matrix_rate(repeats=3)
    say(
        f"predicted: about {flops / 1e9:,.0f} GFLOP for {len(names)} experiments, "
        f"{flops / rate:,.0f} s at the {rate / 1e9:,.0f} GFLOP/s that large products reach now"
    )


def _study(arguments: argparse.Namespace, model: GPT2) -> Study:
    running = {
        "quick": arguments.quick,
        "backend": arguments.backend,
        "precision": arguments.precision,
        "threads": arguments.threads,
        "progress": options.progress(arguments),
    }
    if arguments.prompts:
        pairs = options.read_prompts(arguments, model, values=0)
        study = Study.of_prompts(model, pairs, prepend_bos=arguments.bos, **running)
    else:
        how = options.drawing(arguments)
        if arguments.quick and arguments.n is None:
            how["n"] = _QUICK
        # Other prompts made of them, and for most experiments several values of every head.
        check_drawn(how["n"], "--n", 100 * model.config.n_layer * model.config.n_head)
        study = Study.drawn_from(model, **how, prepend_bos=arguments.bos, **running)
    if len(study.pairs) < 2:
        raise ValueError("reproduce needs at least two prompts: errors are over prompts, got one")
    return study


def _circuit(arguments: argparse.Namespace, model: GPT2) -> Circuit | None:
    if arguments.circuit is not None:
        return options.named_circuit(arguments.circuit)
    return published_circuit() if is_gpt2_small(model) else None


def _of_circuit(bare: Study, circuit: Circuit) -> Study:
    """The study of a circuit, whose heads and roles the model and the prompts have."""
    if not circuit.roles:
        raise ValueError("--circuit: it must have at least one head, got none")
    try:
        study = bare.with_circuit(circuit)
        circuit.check(study.pairs, study.model.config)
    except ValueError as problem:
        raise ValueError(f"--circuit: {str(problem).removeprefix('base: ')}") from None
    return study


def _page(
    study: Study, findings: list[Finding], left: list[tuple[str, str]], prompts: str | None
) -> Page:
    model, config = study.model, study.model.config
    lead = (
        "Experiments of “Interpretability in the Wild” (Wang et al. 2022), measured on "
        f"{model.name}. Verdicts hold published figures of GPT-2 small against its own alone; "
        + (f"prompts are those of {prompts}." if prompts else "the wording of prompts is our own.")
    )
    sections = [part for one in findings for part in (one.table(), *one.figures)]
    if left:
        rows = [list(one) for one in left]
        sections.append(Table("Left out", "", ["experiment", "why"], rows))
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
