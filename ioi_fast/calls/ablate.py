"""`ablate`: outputs of heads and MLPs are replaced and all that follows is recomputed."""

from __future__ import annotations

from ioi_fast.asked.interventions import Ablations, parse_variants
from ioi_fast.asked.metrics import Metric
from ioi_fast.asked.own_metrics import bound_metric, check_metric
from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.asked.source_checks import check_new_values, check_reached, check_source
from ioi_fast.asked.sources import SOURCES
from ioi_fast.calls.checks import check_inputs, exact_model
from ioi_fast.calls.choose_backend import choose
from ioi_fast.calls.reruns import rerun
from ioi_fast.calls.surroundings import bar, surroundings
from ioi_fast.model.gpt2 import GPT2
from ioi_fast.plan.reruns_of_asked import plan_of_ablations
from ioi_fast.reference import calls as reference
from ioi_fast.results.result import Result, provenance


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
            plan = plan_of_ablations(
                model.config, pairs, mean_pairs, ablations, metric, choice.budget(model)
            )
            outcome, ran = rerun(model, pairs, mean_pairs, plan, read, choice, progress)
        else:
            exact, ran = exact_model(model, choice), "reference"
            with bar(len(ablations.variants), "ablate", progress) as advance:
                outcome = reference.ablate(exact, pairs, mean_pairs, ablations, read, advance)
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
    if SOURCES[ablations.source].of_new:
        check_new_values(pairs, ablations.variants, "source", ablations.circuit is not None)
    mean_pairs = pairs if mean_pairs is None else mean_pairs
    check_inputs(model, mean_pairs, "mean_pairs")
    check_source(ablations.source, pairs, mean_pairs, "source")
    named = {one.position.name: one.position for variant in ablations.variants for one in variant}
    check_reached(ablations.source, pairs, mean_pairs, named.values(), "source")
    return ablations, mean_pairs
