"""`pair_sweep`: every pair of heads along the query, key and value paths between them."""

from __future__ import annotations

from torch import Tensor

from ioi_fast.asked.interventions import PairSweep, parse_pair_sweep
from ioi_fast.asked.metrics import Metric
from ioi_fast.asked.own_metrics import bound_metric, check_metric
from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.calls.checks import check_inputs, exact_model
from ioi_fast.calls.choose_backend import Choice, choose
from ioi_fast.calls.surroundings import bar, surroundings
from ioi_fast.engine import choose_ops
from ioi_fast.engine.engine import Engine
from ioi_fast.engine.pair_sweep import pair_sweep as fast_pair_sweep
from ioi_fast.model.gpt2 import GPT2
from ioi_fast.plan.paths_of_asked import plan_of_pair_sweep
from ioi_fast.reference import calls as reference
from ioi_fast.results.pair_result import PairResult, PairValues
from ioi_fast.results.result import provenance


def pair_sweep(
    model: GPT2,
    pairs: PromptPairs,
    inputs: object = ("q", "k", "v"),
    between: str = "nothing",
    position: object = None,
    per_prompt: bool = False,
    metric: Metric = "logit_diff",
    precision: str = "fp32",
    backend: str = "auto",
    max_memory: int | None = None,
    threads: int | None = None,
    progress: bool = False,
) -> PairResult:
    """What changes when one input of one head sees what one earlier head made of the new prompt.

    Every sender with every later receiver and each of `inputs`, one path patch each (paper section
    3, receivers one at a time). effect [I, L, H, L, H] by (input, sender, receiver), 0 where the
    sender is not earlier; with per_prompt also values [I, L, H, L, H, N]. `position` is where the
    sender writes and the receiver is overwritten, None for all. Raises as `path_patch` does.

    >>> ioi_fast.pair_sweep(model, pairs).effect[0, 0, 1, 2, 3]    # 0.1 -> 2.3.q, doctest: +SKIP
    """
    with surroundings(threads):
        sweep = checked_sweep(model, pairs, inputs, between, position, per_prompt, metric)
        choice = choose(model, backend, precision, max_memory)
        read = bound_metric(metric, pairs.extra)
        kept = PairValues(len(sweep.inputs), model.config, len(pairs), per_prompt)
        base, ran = _run(model, pairs, sweep, read, choice, progress, kept)
        definition = {
            "call": "pair_sweep",
            "inputs": list(sweep.inputs),
            "between": between,
            "position": sweep.position.name,
        }
        return PairResult(
            inputs=sweep.inputs,
            values=kept.values,
            effect=kept.effect(),
            stderr=kept.stderr(),
            base=base.float(),
            backend=ran,
            precision=precision,
            provenance=provenance(model, pairs, metric, definition),
        )


def checked_sweep(
    model: GPT2,
    pairs: PromptPairs,
    inputs: object,
    between: object,
    position: object,
    per_prompt: object,
    metric: Metric,
) -> PairSweep:
    """The sweep that these arguments ask for, all of them checked."""
    check_inputs(model, pairs)
    check_metric(metric, pairs.extra)
    if not isinstance(per_prompt, bool):
        raise TypeError(f"per_prompt must be True or False, got {per_prompt!r}")
    return parse_pair_sweep(pairs, inputs=inputs, between=between, position=position)


def _run(
    model: GPT2,
    pairs: PromptPairs,
    sweep: PairSweep,
    metric: Metric,
    choice: Choice,
    progress: bool,
    kept: PairValues,
) -> tuple[Tensor, str]:
    if choice.backend != "reference":
        plan = plan_of_pair_sweep(model, pairs, sweep, metric, choice.budget(model))
        table = choose_ops.table_of(choice.backend, choice.precision, model.device)
        with table.workspace(), bar(plan.steps, "pair sweep", progress) as advance:
            base = fast_pair_sweep(Engine.of(model, table), pairs, plan, metric, kept.keep, advance)
        return base, table.backend
    exact, config = exact_model(model, choice), model.config
    total = len(sweep.inputs) * config.n_head**2 * config.n_layer * (config.n_layer - 1) // 2
    with bar(total, "pair sweep", progress) as advance:
        base = reference.pair_sweep(exact, pairs, sweep, metric, kept.keep, advance)
    return base, "reference"
