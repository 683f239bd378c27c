"""`ioi-fast pairs`: every pair of heads, along the query, key and value paths between them."""

from __future__ import annotations

import argparse
import time
from functools import partial

from ioi_fast.asked.interventions import BETWEEN
from ioi_fast.asked.metrics import METRICS
from ioi_fast.asked.sites import INPUTS
from ioi_fast.calls.explain import explain
from ioi_fast.calls.pair_sweep import pair_sweep
from ioi_fast.commands import options, output
from ioi_fast.report.sweeps import pair_figures
from ioi_fast.report.terminal import say_lines

_SHOWN = 20


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command and its options."""
    parser = commands.add_parser(
        "pairs",
        help="patch every path from one head to an input of a later head",
        description="Exhaustive pairs: for each sender, receiver and input a path patch of its "
        "own, all of them together.",
    )
    options.add_inputs(parser, n=16)
    paths = parser.add_argument_group("which paths")
    paths.add_argument("--inputs", nargs="+", default=list(INPUTS), choices=INPUTS)
    paths.add_argument("--between", default="nothing", choices=BETWEEN)
    paths.add_argument("--position", default="all", help="a role, a token position or 'all'")
    paths.add_argument("--metric", default="logit_diff", choices=METRICS)
    paths.add_argument("--per-prompt", action="store_true", help="every value in --json")
    options.add_running(parser)
    options.add_plan(parser)
    output.add_output(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit status."""
    options.check_plan(arguments)
    if arguments.per_prompt and not arguments.json:
        raise ValueError("--per-prompt needs --json, which is where every value goes")
    model = options.read_model(arguments)
    heads = model.config.n_layer * model.config.n_head
    each = len(arguments.inputs) * heads**2 if arguments.per_prompt else 1
    pairs = options.read_prompts(arguments, model, each)
    asked = {
        "inputs": arguments.inputs,
        "between": arguments.between,
        "position": options.position(arguments.position),
        "per_prompt": arguments.per_prompt,
        "metric": arguments.metric,
        "precision": arguments.precision,
        "backend": arguments.backend,
        "max_memory": arguments.max_memory,
        "threads": arguments.threads,
    }
    plan = partial(explain, pair_sweep, model, pairs, **asked)
    if arguments.plan:
        say_lines(plan())
        return 0
    options.check_fits(plan, model)
    begun = time.perf_counter()
    result = pair_sweep(model, pairs, **asked, progress=options.progress(arguments))
    seconds = time.perf_counter() - begun
    caption = f"between={arguments.between}, position {arguments.position}"
    inputs, L, H, _, _ = result.shape
    output.finish(
        result,
        pair_figures(result, caption, _SHOWN),
        f"{inputs * L * (L - 1) // 2 * H * H} paths",
        model,
        seconds,
        arguments,
        page="Pairs of heads",
    )
    return 0
