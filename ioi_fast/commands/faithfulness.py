"""`ioi-fast faithfulness`: GPT-2 small's circuit on public prompt files, form by form."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from functools import partial

from ioi_fast.calls.surroundings import bar
from ioi_fast.commands import options, output
from ioi_fast.commands.output_paths import check_outputs
from ioi_fast.ioi.form_faithfulness import FormShare, form_faithfulness, form_files
from ioi_fast.ioi.verdicts import DIFFERS
from ioi_fast.outside.whole_files import write_text
from ioi_fast.report.figures import Table
from ioi_fast.report.terminal import print_table


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command and its options."""
    parser = commands.add_parser(
        "faithfulness",
        help="GPT-2 small's circuit on public prompt files, beside 60 published figures",
        description="100·F(C)/F(M) of the published circuit of 26 heads for every form, with and "
        "without <|endoftext|> in front, on files ioi_ABBA_template_0_prompts.json and so on.",
    )
    parser.add_argument("folder", metavar="FOLDER", help="where the prompt files are")
    parser.add_argument("--model", default="gpt2", metavar="MODEL", help="default gpt2")
    parser.add_argument(
        "--circuit", default="published", metavar="CIRCUIT", help="published, naive or FILE.json"
    )
    parser.add_argument(
        "--per-form", type=options.positive, default=50, help="first prompts of each file (50)"
    )
    options.add_running(parser)
    parser.add_argument("--json", metavar="FILE", help="write all figures")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; 1 when a published figure of GPT-2 small is not met."""
    check_outputs(arguments, arguments.json, page=False)
    files = form_files(arguments.folder)
    model = options.read_model(arguments)
    how = {name: getattr(arguments, name) for name in ("backend", "precision", "threads")}
    circuit = options.named_circuit(arguments.circuit)
    found = []
    with bar(2 * len(files), "forms", options.progress(arguments)) as advance:
        asked = (model, arguments.folder, arguments.per_form, circuit)
        for one in form_faithfulness(*asked, **how):
            found.append(one)
            advance(1)

    def write_json() -> None:
        rows = [{**asdict(one), "percent": one.percent} for one in found]
        write_text(arguments.json, json.dumps({"model": model.name, "forms": rows}, indent=1))

    show = partial(print_table, _table(found, model.name))
    output.deliver([("figures written", arguments.json, write_json)], show)
    return int(any(one.verdict == DIFFERS for one in found))


def _table(found: list[FormShare], model: str) -> Table:
    return Table(
        title=f"Faithfulness of the circuit in {model}, by form",
        caption="100·F(C)/F(M), ratio of means over the prompts of a form; means of knock-outs are "
        "over the same prompts' new ones.",
        columns=["form", "in front", "prompts", "F(M)", "F(C)", "percent", "published", "verdict"],
        rows=[
            [
                one.form,
                "<|endoftext|>" if one.bos else "nothing",
                one.prompts,
                round(one.model, 3),
                round(one.circuit, 3),
                round(one.percent, 2),
                one.published,
                one.verdict,
            ]
            for one in found
        ],
    )
