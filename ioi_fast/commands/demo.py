"""`ioi-fast demo`: which heads of a trained model carry the answer, and is fast equal to slow?"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ioi_fast.commands import options, output
from ioi_fast.commands.demo_page import demo_figures, demo_page
from ioi_fast.commands.demo_study import run_study
from ioi_fast.commands.output_paths import check_outputs
from ioi_fast.outside.whole_files import write_text
from ioi_fast.report.figures import BarList, HeatMap, Table
from ioi_fast.report.page import write_page
from ioi_fast.report.terminal import print_bars, print_heat_map, print_table


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command and its options."""
    parser = commands.add_parser(
        "demo",
        help="path patching of every head of the bundled model, checked against the slow way",
        description="Path patching of every head, then of the heads behind the strongest movers, "
        "with what each attends to, and a check of the fast answer against the slow one.",
    )
    options.add_inputs(parser, n=64, file=False)
    options.add_running(parser)
    parser.add_argument(
        "--checks", type=options.positive, default=6, help="senders rebuilt by the reference"
    )
    parser.add_argument("--out", default="out", metavar="DIR", help="folder of report.html (out)")
    parser.add_argument("--json", metavar="FILE", help="write all figures")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the study, prints it and writes the page; returns 1 when fast and slow differ."""
    page_file = Path(arguments.out) / "report.html"
    check_outputs(arguments, page_file, arguments.json, page=True)
    model = options.read_model(arguments)
    values = 2 * model.config.n_layer * model.config.n_head  # to the logits and to the queries
    pairs = options.read_prompts(arguments, model, values)
    study = run_study(
        model,
        pairs,
        checks=arguments.checks,
        seed=options.drawing(arguments)["seed"],
        backend=arguments.backend,
        precision=arguments.precision,
        threads=arguments.threads,
        progress=options.progress(arguments),
    )
    page = demo_page(study, options.drawn(arguments))

    def write_json() -> None:
        figures = {**demo_figures(study), "provenance": page.provenance}
        write_text(arguments.json, json.dumps(figures, indent=1, allow_nan=False))

    def show() -> None:
        for section in page.sections:
            _print(section)

    report = ("report written", page_file, lambda: write_page(page, page_file))
    output.deliver([report, ("figures written", arguments.json, write_json)], show)
    return 0 if study.agrees else 1


def _print(section: object) -> None:
    printers = {HeatMap: print_heat_map, BarList: print_bars, Table: print_table}
    if type(section) in printers:
        printers[type(section)](section)
