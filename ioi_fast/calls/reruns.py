"""`activation_patch` and `ablate`: sites take other values and all that follows is recomputed."""

from __future__ import annotations

from ioi_fast import ops, reference_backend, rerun_backend
from ioi_fast.ablation_source import check_new_values, check_reached, check_source
from ioi_fast.backends import Choice, choose
from ioi_fast.calls.checks import check_inputs, exact_model
from ioi_fast.interventions import (
    Ablations,
    ActivationPatch,
    parse_activation_patch,
    parse_variants,
)
from ioi_fast.metrics import Metric, bound_metric, check_metric
from ioi_fast.model import GPT2
from ioi_fast.prompts import PromptPairs
from ioi_fast.reference_backend import Outcome
from ioi_fast.rerun_asked import Asked, ask_ablations, ask_activation_patch
from ioi_fast.results import Result, provenance
from ioi_fast.running import bar, surroundings


def activation_patch(
    model: GPT2,
    pairs: PromptPairs,
    site: str = "z",
    position: object = None,
    heads: object = None,
    metric: Metric = "logit_diff",
    precision: str = "fp32",
    backend: str = "auto",
    max_memory: int | None = None,
    threads: int | None = None,
    progress: bool = False,
) -> Result:
    """What changes when a site takes the new run's value and everything after is recomputed.

    Sites z, q, k, v by head: values [L, H, N], or [L, T, H, N] with position="each"; with `heads`
    (a list like senders) [S, N] or [S, T, N]. Sites resid_pre, resid_mid, attn_out, mlp_out by
    layer: [L, N] or [L, T, N]. Raises as `path_patch` does.

    >>> ioi_fast.activation_patch(model, pairs, "resid_pre", "each")    # doctest: +SKIP
    """
    with surroundings(threads):
        patch = checked_activation(model, pairs, site, position, heads, metric)
        choice = choose(model, backend, precision, max_memory)
        read = bound_metric(metric, pairs.extra)
        if choice.backend != "reference":
            limits = (max_memory, ops.room_of(model.config, choice.backend, choice.precision))
            asked = ask_activation_patch(model.config, pairs, patch, metric, *limits)
            outcome, ran = _rerun(model, pairs, pairs, asked, read, choice, progress)
        else:
            exact, ran = exact_model(model, choice), "reference"
            with bar(len(patch.cells), "activation patch", progress) as advance:
                outcome = reference_backend.activation_patch(exact, pairs, patch, read, advance)
        definition = {"call": "activation_patch", "site": site, "position": patch.position_name}
        return Result(
            values=outcome.values.float().view(*patch.shape, len(pairs)),
            base=outcome.base.float(),
            senders=patch.labels,
            shape=patch.shape,
            backend=ran,
            precision=precision,
            provenance=provenance(model, pairs, metric, definition),
        )


def checked_activation(
    model: GPT2, pairs: PromptPairs, site: object, position: object, heads: object, metric: Metric
) -> ActivationPatch:
    """The intervention that arguments of `activation_patch` ask for, all of them checked."""
    check_inputs(model, pairs)
    check_metric(metric, pairs.extra)
    return parse_activation_patch(pairs, model.config, site=site, position=position, heads=heads)


def ablate(
    model: GPT2,
    pairs: PromptPairs,
    variants: object,
    source: str = "mean",
    base: object = "model",
    mean_pairs: PromptPairs | None = None,
    metric: Metric = "logit_diff",
    precision: str = "fp32",
    backend: str = "auto",
    max_memory: int | None = None,
    threads: int | None = None,
    progress: bool = False,
) -> Result:
    """What changes when heads and MLPs are replaced by zero, a mean or the new run's (section 6).

    A variant is a dict {"9.9": role, list of roles or "all", "mlp0": …}; values [P, N]. With a
    Circuit as base every other head is ablated everywhere and each of its heads at all positions
    but its roles, and `base` is the metric of that run: F(C∖K) = base + values. Means are taken
    over `mean_pairs` (default: pairs). Raises as `path_patch` does.

    >>> ioi_fast.ablate(model, pairs, [{"4.1": "END"}, {"mlp0": "all"}])    # doctest: +SKIP
    """
    asked = (variants, source, base, mean_pairs, metric)
    with surroundings(threads):
        ablations, mean_pairs = checked_ablations(model, pairs, *asked)
        choice = choose(model, backend, precision, max_memory)
        read = bound_metric(metric, pairs.extra)
        if choice.backend != "reference":
            limits = (max_memory, ops.room_of(model.config, choice.backend, choice.precision))
            work = ask_ablations(model.config, pairs, mean_pairs, ablations, metric, *limits)
            outcome, ran = _rerun(model, pairs, mean_pairs, work, read, choice, progress)
        else:
            exact, ran = exact_model(model, choice), "reference"
            with bar(len(ablations.variants), "ablate", progress) as advance:
                outcome = reference_backend.ablate(
                    exact, pairs, mean_pairs, ablations, read, advance
                )
        definition = {
            "call": "ablate",
            "source": source,
            "base": repr(base),
            "mean_token_hash": mean_pairs.token_hash(),
        }
        return Result(
            values=outcome.values.float(),
            base=outcome.base.float(),
            senders=ablations.labels,
            shape=(len(ablations.variants),),
            backend=ran,
            precision=precision,
            provenance=provenance(model, pairs, metric, definition),
        )


def checked_ablations(
    model: GPT2,
    pairs: PromptPairs,
    variants: object,
    source: object,
    base: object,
    mean_pairs: PromptPairs | None,
    metric: Metric,
) -> tuple[Ablations, PromptPairs]:
    """The intervention that arguments of `ablate` ask for, and the prompts that means are over."""
    check_inputs(model, pairs)
    check_metric(metric, pairs.extra)
    ablations = parse_variants(pairs, model.config, variants, source, base)
    if ablations.source == "new":
        check_new_values(pairs, ablations.variants, "source", ablations.circuit is not None)
    mean_pairs = pairs if mean_pairs is None else mean_pairs
    check_inputs(model, mean_pairs, "mean_pairs")
    check_source(ablations.source, pairs, mean_pairs, "source")
    named = {one.position.name: one.position for variant in ablations.variants for one in variant}
    check_reached(ablations.source, pairs, mean_pairs, named.values(), "source")
    return ablations, mean_pairs


def _rerun(
    model: GPT2,
    pairs: PromptPairs,
    mean_pairs: PromptPairs,
    asked: Asked,
    metric: Metric,
    choice: Choice,
    progress: bool,
) -> tuple[Outcome, str]:
    table = ops.table_of(choice.backend, choice.precision, model.device)
    with table.workspace(), bar(asked.plan.steps, "reruns", progress) as advance:
        outcome = rerun_backend.run(model, pairs, mean_pairs, asked, metric, table, advance)
    return outcome, table.backend
