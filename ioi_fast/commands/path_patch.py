"""`ioi-fast path-patch`: one sweep, as a table, a page or JSON."""

from __future__ import annotations

import argparse
import time
from functools import partial

from ioi_fast.asked.metrics import METRICS
from ioi_fast.asked.nodes import split_senders
from ioi_fast.asked.receivers import split_receivers
from ioi_fast.asked.sources import SOURCES
from ioi_fast.calls.explain import explain
from ioi_fast.calls.path_patch import path_patch
from ioi_fast.commands import options, output
from ioi_fast.report.terminal import say_lines
from ioi_fast.results.result import Result


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command and its options."""
    parser = commands.add_parser(
        "path-patch",
        help="patch senders along their paths to the logits or to q/k/v/MLP receivers",
        description="Path patching: each sender takes its output on the new prompt, and the change "
        "flows to the receivers along direct paths only.",
    )
    options.add_inputs(parser, n=100)
    sweep = parser.add_argument_group("what is patched")
    sweep.add_argument(
        "--senders", default="heads", help="heads, mlps, or a list like 9.9,mlp3,8.6+8.10"
    )
    sweep.add_argument("--receivers", default="logits", help="logits, or a list like 9.9.q,mlp5")
    sweep.add_argument(
        "--position",
        default="auto",
        help="a role, a token position or 'all'; auto, the default, is END for the logits and "
        "queries, and other receivers have to be given one",
    )
    sweep.add_argument("--between", default="mlps", choices=("mlps", "nothing"))
    sweep.add_argument("--metric", default="logit_diff", choices=METRICS)
    sweep.add_argument("--knock-out", help="ablated throughout, like 9.9@END,mlp0@all")
    sweep.add_argument("--knock-out-source", choices=SOURCES, help="default mean")
    options.add_running(parser)
    options.add_plan(parser)
    output.add_output(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit status."""
    options.check_plan(arguments)
    if arguments.knock_out_source and arguments.knock_out is None:
        raise ValueError("--knock-out-source is that of --knock-out, which is not given")
    model = options.read_model(arguments)
    asked = _asked(arguments)
    values = {"heads": model.config.n_layer * model.config.n_head, "mlps": model.config.n_layer}
    each = values.get(arguments.senders, len(asked["senders"]))
    pairs = options.read_prompts(arguments, model, each)
    plan = partial(explain, path_patch, model, pairs, **asked)
    if arguments.plan:
        say_lines(plan())
        return 0
    options.check_fits(plan, model)
    begun = time.perf_counter()
    result = path_patch(model, pairs, **asked, progress=options.progress(arguments))
    seconds = time.perf_counter() - begun
    output.present(
        result,
        model,
        seconds,
        arguments,
        page="Path patching",
        title=f"{arguments.senders} to {arguments.receivers}",
        caption=f"between={arguments.between}, position {_position(result)}",
        ranked="senders",
        what="the sender sees the new prompt",
    )
    return 0


def _position(result: Result) -> object:
    return result.provenance["definition"]["position"]


def _asked(arguments: argparse.Namespace) -> dict[str, object]:
    return {
        "senders": split_senders(arguments.senders),
        "receivers": split_receivers(arguments.receivers),
        "position": options.position(arguments.position),
        "between": arguments.between,
        "metric": arguments.metric,
        "knock_out": _knock_out(arguments.knock_out),
        "knock_out_source": arguments.knock_out_source or "mean",
        "precision": arguments.precision,
        "backend": arguments.backend,
        "max_memory": arguments.max_memory,
        "threads": arguments.threads,
    }


def _knock_out(text: str | None) -> dict[str, str] | None:
    return None if text is None else options.ablations(text, "--knock-out")
