"""`ioi-fast ablate`: what is lost without some heads and MLPs."""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from functools import partial

from ioi_fast.asked.circuit import Circuit
from ioi_fast.asked.metrics import METRICS
from ioi_fast.asked.nodes import parse_senders
from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.asked.sources import SOURCES
from ioi_fast.calls.ablate import ablate
from ioi_fast.calls.explain import explain
from ioi_fast.commands import options, output
from ioi_fast.ioi.roles import is_distant, with_roles
from ioi_fast.model.gpt2 import GPT2
from ioi_fast.report.terminal import say_lines
from ioi_fast.results.result import Result


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command and its options."""
    parser = commands.add_parser(
        "ablate",
        help="knock out heads and MLPs, one by one or in sets, over the model or over a circuit",
        description="Ablation: outputs are replaced by zero, a mean or the new run's, and "
        "everything after them is recomputed.",
    )
    options.add_inputs(parser, n=100)
    what = parser.add_argument_group("what is ablated")
    what.add_argument(
        "--variants",
        nargs="+",
        default=["heads"],
        metavar="VARIANT",
        help="'heads' or 'mlps' (each alone), or sets like 9.9@END,mlp0@all 9.6@S2",
    )
    what.add_argument("--position", help="a role or 'all', for 'heads' and 'mlps' (default all)")
    what.add_argument("--source", default="mean", choices=SOURCES)
    what.add_argument(
        "--circuit",
        help="heads that stay, like 9.9@END,0.1@S2, or 'none', 'published' or 'naive' (GPT-2 "
        "small's), or a file circuit.json; all others are ablated",
    )
    what.add_argument("--metric", default="logit_diff", choices=METRICS)
    options.add_running(parser)
    options.add_plan(parser)
    output.add_output(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit status."""
    options.check_plan(arguments)
    model = options.read_model(arguments)
    values = {"heads": model.config.n_layer * model.config.n_head, "mlps": model.config.n_layer}
    each = values.get(arguments.variants[0], len(arguments.variants))
    pairs = options.read_prompts(arguments, model, each)
    asked = {
        "variants": _variants(arguments, model, pairs),
        "source": arguments.source,
        "base": _base(arguments.circuit),
        "metric": arguments.metric,
        "precision": arguments.precision,
        "backend": arguments.backend,
        "max_memory": arguments.max_memory,
        "threads": arguments.threads,
    }
    pairs = with_roles(pairs, _distant_roles(asked["variants"], asked["base"]))
    plan = partial(explain, ablate, model, pairs, **asked)
    if arguments.plan:
        say_lines(plan())
        return 0
    options.check_fits(plan, model)
    begun = time.perf_counter()
    result = ablate(model, pairs, **asked, progress=options.progress(arguments))
    output.present(
        _as_heads(result, arguments, model),
        model,
        time.perf_counter() - begun,
        arguments,
        page="Ablation",
        title=f"ablated, source {arguments.source}",
        caption=f"base: {arguments.circuit or 'the model'}",
        ranked="variants",
        what="these are ablated",
    )
    return 0


def _distant_roles(variants: list[dict], base: Circuit | str) -> list[str]:
    """Roles such as END-1, which the prompts get; others they have or lack."""
    kept = [roles for one in variants for roles in one.values()]
    if isinstance(base, Circuit):
        kept += base.roles.values()
    named = [role for roles in kept for role in ([roles] if isinstance(roles, str) else roles)]
    return [role for role in named if is_distant(role)]


def _variants(
    arguments: argparse.Namespace, model: GPT2, pairs: PromptPairs
) -> list[dict[str, str | list[str]]]:
    if arguments.variants in (["heads"], ["mlps"]):
        roles = ["all", *pairs.positions]
        if arguments.position not in (None, *roles):
            known = ", ".join(roles)
            raise ValueError(f"--position must be one of {known}, got {arguments.position!r}")
        senders = parse_senders(arguments.variants[0], model.config)
        return [{str(sender): arguments.position or "all"} for sender in senders]
    for word in ("heads", "mlps"):
        if word in arguments.variants:
            raise ValueError(f"--variants: {word!r} stands alone, got {arguments.variants}")
    if arguments.position is not None:
        raise ValueError("--position is for 'heads' and 'mlps'; sets name their own, like 9.9@END")
    return [options.ablations(text, "--variants") for text in arguments.variants]


def _as_heads(result: Result, arguments: argparse.Namespace, model: GPT2) -> Result:
    """The sweep over all heads as [L, H], which is shown as a heat-map."""
    if arguments.variants != ["heads"]:
        return result
    return replace(result, shape=(model.config.n_layer, model.config.n_head))


def _base(text: str | None) -> Circuit | str:
    if text is None:
        return "model"
    if text in ("published", "naive") or text.endswith(".json"):
        return options.named_circuit(text)
    heads = {} if text == "none" else options.ablations(text, "--circuit")
    try:
        return Circuit(heads)
    except ValueError as problem:
        raise ValueError(f"--circuit: {problem}") from None
