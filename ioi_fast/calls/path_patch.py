"""`path_patch`: validate, choose a backend, run, label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ioi_fast.asked.interventions import PathPatch, parse_path_patch
from ioi_fast.asked.metrics import Metric
from ioi_fast.asked.own_metrics import bound_metric, check_metric
from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.asked.source_checks import check_new_values, check_reached, check_source
from ioi_fast.asked.sources import SOURCES
from ioi_fast.calls.checks import check_inputs, exact_model
from ioi_fast.calls.choose_backend import Choice, choose
from ioi_fast.calls.surroundings import bar, surroundings
from ioi_fast.engine import choose_ops
from ioi_fast.engine.engine import Engine
from ioi_fast.engine.path_patch import path_patch as fast_path_patch
from ioi_fast.model.gpt2 import GPT2
from ioi_fast.plan.paths_of_asked import plan_of_path_patch
from ioi_fast.reference import calls as reference
from ioi_fast.results.outcome import Outcome
from ioi_fast.results.result import Result, provenance


def path_patch(
    model: GPT2,
    pairs: PromptPairs,
    senders: object = "heads",
    receivers: object = "logits",
    position: object = "auto",
    between: str = "mlps",
    metric: Metric = "logit_diff",
    knock_out: Mapping | None = None,
    knock_out_source: str = "mean",
    precision: str = "fp32",
    backend: str = "auto",
    max_memory: int | None = None,
    threads: int | None = None,
    progress: bool = False,
) -> Result:
    """What changes when each sender's output is the new run's and flows to the receivers alone
    (paper section 3).

    Heads between sender and receiver stay frozen; MLPs are recomputed (between="mlps") or frozen
    too (between="nothing"). `position` is where senders write and receivers are overwritten: a
    role, an int, a tensor [N] or None for all. "auto" is END where all receivers are logits or
    queries; keys, values and MLPs have to be given one. values [S, N]; effect [L, H] for "heads",
    [L] for "mlps", [S] for a list. Raises TypeError or ValueError naming the argument, RuntimeError
    when a named backend can't run the call.

    >>> result = ioi_fast.path_patch(model, pairs)          # doctest: +SKIP
    >>> result.effect.shape                                 # doctest: +SKIP
    torch.Size([6, 8])
    """
    with surroundings(threads):
        patch = checked_patch(
            model,
            pairs,
            metric,
            senders=senders,
            receivers=receivers,
            position=position,
            between=between,
            knock_out=knock_out,
            knock_out_source=knock_out_source,
        )
        choice = choose(model, backend, precision, max_memory)
        read = bound_metric(metric, pairs.extra)
        outcome, ran = _run_path_patch(model, pairs, patch, read, choice, progress)
        return Result(
            values=outcome.values.float(),
            base=outcome.base.float(),
            senders=tuple(str(sender) for sender in patch.senders),
            shape=_sender_shape(model, senders, len(patch.senders)),
            backend=ran,
            precision=precision,
            provenance=provenance(model, pairs, metric, _definition(patch)),
        )


def checked_patch(model: GPT2, pairs: PromptPairs, metric: Metric, **asked: object) -> PathPatch:
    """The intervention that arguments of `path_patch` ask for, all of them checked."""
    check_inputs(model, pairs)
    check_metric(metric, pairs.extra)
    patch = parse_path_patch(pairs, model.config, **asked)
    if patch.knock_out.ablations:
        taken = (patch.knock_out.source, pairs, pairs)
        check_source(*taken, "knock_out_source")
        positions = [one.position for one in patch.knock_out.ablations]
        check_reached(*taken, positions, "knock_out_source")
        if SOURCES[patch.knock_out.source].of_new:
            check_new_values(pairs, [patch.knock_out.ablations], "knock_out_source")
    return patch


def _run_path_patch(
    model: GPT2,
    pairs: PromptPairs,
    patch: PathPatch,
    metric: Metric,
    choice: Choice,
    progress: bool,
) -> tuple[Outcome, str]:
    if choice.backend != "reference":
        plan = plan_of_path_patch(model, pairs, patch, metric, choice.budget(model))
        table = choose_ops.table_of(choice.backend, choice.precision, model.device)
        if choice.max_memory is not None:
            # What is captured stands beside what a plan counts.
            table = replace(table, capture=None)
        with table.workspace(), bar(plan.steps, "path patch", progress) as advance:
            engine = Engine.of(model, table)
            outcome = fast_path_patch(engine, pairs, plan, patch.knock_out, metric, advance)
        return outcome, table.backend
    exact = exact_model(model, choice)
    with bar(len(patch.senders), "path patch", progress) as advance:
        return reference.path_patch(exact, pairs, patch, metric, advance), "reference"


def _definition(patch: PathPatch) -> dict[str, object]:
    receivers = patch.receivers
    return {
        "call": "path_patch",
        "receivers": "logits" if receivers is None else [str(receiver) for receiver in receivers],
        "position": patch.position.name,
        "between": patch.between,
        "knock_out": [str(ablation) for ablation in patch.knock_out.ablations],
        "knock_out_source": patch.knock_out.source if patch.knock_out.ablations else None,
    }


def _sender_shape(model: GPT2, senders: object, count: int) -> tuple[int, ...]:
    if isinstance(senders, str) and senders == "heads":
        return (model.config.n_layer, model.config.n_head)
    return (count,)
