"""`ioi-fast path-patch`: one sweep, as a table, a page or JSON."""

from __future__ import annotations

import argparse
import json
import time

from ioi_fast.calls import explain, path_patch
from ioi_fast.commands import options
from ioi_fast.metrics import METRICS
from ioi_fast.report.atomic import write_text
from ioi_fast.report.figures import BarList, HeatMap, Page
from ioi_fast.report.page import write_page
from ioi_fast.report.sweeps import heads_heat_map, ranking_bars
from ioi_fast.report.terminal import print_bars, print_heat_map
from ioi_fast.results import Result
from ioi_fast.revision import revision

_SHOWN = 12


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command and its options."""
    parser = commands.add_parser(
        "path-patch",
        help="patch senders along their paths to the logits or to q/k/v/MLP receivers",
        description="Path patching: each sender takes its output on the new prompt, and the change "
        "flows to the receivers along direct paths only.",
    )
    options.add_inputs(parser, n=100)
    parser.add_argument("--prompts", metavar="FILE", help="a JSON file of prompts instead")
    sweep = parser.add_argument_group("what is patched")
    sweep.add_argument(
        "--senders", default="heads", help="heads, mlps, or a list like 9.9,mlp3,8.6+8.10"
    )
    sweep.add_argument("--receivers", default="logits", help="logits, or a list like 9.9.q,mlp5")
    sweep.add_argument("--position", default="END", help="a role, a token position or 'all'")
    sweep.add_argument("--between", default="mlps", choices=("mlps", "nothing"))
    sweep.add_argument("--metric", default="logit_diff", choices=METRICS)
    sweep.add_argument("--knock-out", default="", help="ablated throughout, like 9.9@END,mlp0@all")
    sweep.add_argument(
        "--knock-out-source", default="mean", choices=("mean", "mean_by_form", "zero", "new")
    )
    options.add_running(parser)
    parser.add_argument("--max-memory", type=options.memory, help="such as 500M or 2G")
    output = parser.add_argument_group("output")
    output.add_argument("--plan", action="store_true", help="print the plan and do nothing")
    output.add_argument("--out", metavar="FILE.html", help="write a page with the heat-map")
    output.add_argument("--json", metavar="FILE", help="write all figures")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit status."""
    if arguments.plan and (arguments.json or arguments.out):
        raise ValueError("--plan prints the plan and runs nothing: leave --json and --out away")
    if not arguments.plan:
        options.check_outputs(arguments.json, arguments.out, page=bool(arguments.out))
    model = options.read_model(arguments)
    pairs = options.read_prompts(arguments, model)
    asked = _asked(arguments)
    if arguments.plan:
        print(explain(path_patch, model, pairs, **asked))
        return 0
    begun = time.perf_counter()
    result = path_patch(model, pairs, **asked, progress=options.progress(arguments))
    seconds = time.perf_counter() - begun
    sections = [_figure(result, arguments)]
    if result.effect.any():
        sections.append(ranking_bars(result, "Strongest senders", _SHOWN))
    provenance = {**result.provenance, "backend": result.backend, "precision": result.precision}
    provenance |= {**options.drawn(arguments), "commit": revision()}
    # Files first: a pipe that is closed early must not cost the results.
    if arguments.json:
        figures = {**result.to_dict(), "provenance": provenance, "seconds": seconds}
        write_text(arguments.json, json.dumps(figures, indent=1, allow_nan=False))
    if arguments.out:
        lead = f"{arguments.metric} of {model.name} on {len(pairs)} prompts."
        write_page(Page("Path patching", lead, sections, provenance), arguments.out)
    for section in sections:
        (print_bars if isinstance(section, BarList) else print_heat_map)(section)
    if not result.effect.any():
        print("no sender changes the metric: every effect is 0")
    mean = float(result.base.double().mean())
    print(
        f"{len(result.senders)} senders x {len(pairs)} prompts in {seconds:.2f} s, "
        f"{result.backend}, {result.precision}; mean {arguments.metric} {mean:.3f}"
    )
    for written in (arguments.json, arguments.out):
        if written:
            print(f"written: {written}")
    return 0


def _figure(result: Result, arguments: argparse.Namespace) -> HeatMap | BarList:
    title = f"{arguments.senders} to {arguments.receivers}"
    caption = f"between={arguments.between}, position {arguments.position}"
    if len(result.shape) == 2:
        return heads_heat_map(result, title, caption)
    return ranking_bars(result, title, len(result.senders), ordered=False)


def _asked(arguments: argparse.Namespace) -> dict[str, object]:
    return {
        "senders": _senders(arguments.senders),
        "receivers": _receivers(arguments.receivers),
        "position": _position(arguments.position),
        "between": arguments.between,
        "metric": arguments.metric,
        "knock_out": _knock_out(arguments.knock_out),
        "knock_out_source": arguments.knock_out_source,
        "precision": arguments.precision,
        "backend": arguments.backend,
        "max_memory": arguments.max_memory,
        "threads": arguments.threads,
    }


def _senders(text: str) -> object:
    if text in ("heads", "mlps"):
        return text
    groups = [part.strip().split("+") for part in text.split(",")]
    return [group if len(group) > 1 else group[0] for group in groups]


def _receivers(text: str) -> object:
    return text if text == "logits" else [part.strip() for part in text.split(",")]


def _position(text: str) -> object:
    if text == "all":
        return None
    return int(text) if text.lstrip("-").isdigit() else text


def _knock_out(text: str) -> dict[str, str] | None:
    if not text:
        return None
    parts = [part.strip().partition("@") for part in text.split(",")]
    for node, at, _ in parts:
        if not at:
            raise ValueError(f"--knock-out: expected NODE@ROLE like 9.9@END, got {node!r}")
        if [other for other, _, _ in parts].count(node) > 1:
            raise ValueError(f"--knock-out: {node} is there twice")
    return {node: role for node, _at, role in parts}
