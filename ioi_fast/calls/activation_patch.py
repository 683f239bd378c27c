"""`activation_patch`: a site takes the new run's value and all that follows is recomputed."""

from __future__ import annotations

from ioi_fast.asked.interventions import ActivationPatch, parse_activation_patch
from ioi_fast.asked.metrics import Metric
from ioi_fast.asked.own_metrics import bound_metric, check_metric
from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.calls.checks import check_inputs, exact_model
from ioi_fast.calls.choose_backend import choose
from ioi_fast.calls.reruns import rerun
from ioi_fast.calls.surroundings import bar, surroundings
from ioi_fast.model.gpt2 import GPT2
from ioi_fast.plan.reruns_of_asked import plan_of_activation_patch
from ioi_fast.reference import calls as reference
from ioi_fast.results.result import Result, provenance


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
            asked = plan_of_activation_patch(
                model.config, pairs, patch, metric, choice.budget(model)
            )
            outcome, ran = rerun(model, pairs, pairs, asked, read, choice, progress)
        else:
            exact, ran = exact_model(model, choice), "reference"
            with bar(len(patch.cells), "activation patch", progress) as advance:
                outcome = reference.activation_patch(exact, pairs, patch, read, advance)
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
