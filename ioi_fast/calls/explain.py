"""`explain`: the plan of a call without running it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.calls.ablate import ablate, checked_ablations
from ioi_fast.calls.activation_patch import activation_patch, checked_activation
from ioi_fast.calls.choose_backend import Choice, check_request, fast_backend
from ioi_fast.calls.pair_sweep import checked_sweep, pair_sweep
from ioi_fast.calls.path_patch import checked_patch, path_patch
from ioi_fast.calls.surroundings import check_progress, surroundings
from ioi_fast.model.gpt2 import GPT2
from ioi_fast.plan.fit_to_memory import Budget, Plan
from ioi_fast.plan.paths_of_asked import plan_of_pair_sweep, plan_of_path_patch
from ioi_fast.plan.reruns_of_asked import plan_of_ablations, plan_of_activation_patch


def explain(call: Callable, model: GPT2, pairs: PromptPairs, **arguments: object) -> Plan:
    """The plan of a call without running it; print it for rows, bytes and FLOPs.

    Raises as the call itself does, and ValueError for a call that has no plan.

    >>> print(ioi_fast.explain(ioi_fast.path_patch, model, pairs))    # doctest: +SKIP
    """
    if not any(call is planned for planned in _PLANNERS):
        names = ", ".join(f"ioi_fast.{planned.__name__}" for planned in _PLANNERS)
        raise ValueError(f"call must be one of {names}, got {call!r}")
    try:
        bound = inspect.signature(call).bind(model, pairs, **arguments)
    except TypeError as problem:
        raise TypeError(f"{call.__name__}: {problem}") from None
    bound.apply_defaults()
    given = bound.arguments
    with surroundings(given["threads"]):
        make = _PLANNERS[call](model, pairs, given)
        check_request(given["backend"], given["precision"], given["max_memory"])
        check_progress(given["progress"])
        name, reason = fast_backend(model, given["precision"], given["backend"])
        if given["backend"] == "reference":
            reason = "backend is 'reference'"
        if reason:
            raise ValueError(f"call: only the fast path has a plan, and {reason}")
        budget = Choice(name, given["precision"], given["max_memory"]).budget(
            model, given["threads"]
        )
        return budget.counted(make(budget))


# Each checks the arguments of its call and returns what makes the plan.
Planned = Callable[[Budget], Plan]
Planner = Callable[[GPT2, PromptPairs, Mapping], Planned]


def _of_path_patch(model: GPT2, pairs: PromptPairs, given: Mapping) -> Planned:
    names = ("senders", "receivers", "position", "between", "knock_out", "knock_out_source")
    metric = given["metric"]
    patch = checked_patch(model, pairs, metric, **{name: given[name] for name in names})
    return lambda budget: plan_of_path_patch(model, pairs, patch, metric, budget)


def _of_ablate(model: GPT2, pairs: PromptPairs, given: Mapping) -> Planned:
    names = ("variants", "source", "base", "mean_pairs", "metric")
    asked = checked_ablations(model, pairs, **{name: given[name] for name in names})
    ablations, means = asked
    more = (means, ablations, given["metric"])
    return lambda budget: plan_of_ablations(model.config, pairs, *more, budget).plan


def _of_activation_patch(model: GPT2, pairs: PromptPairs, given: Mapping) -> Planned:
    names = ("site", "position", "heads", "metric")
    patch = checked_activation(model, pairs, **{name: given[name] for name in names})
    more = (patch, given["metric"])
    return lambda budget: plan_of_activation_patch(model.config, pairs, *more, budget).plan


def _of_pair_sweep(model: GPT2, pairs: PromptPairs, given: Mapping) -> Planned:
    names = ("inputs", "between", "position", "per_prompt", "metric")
    sweep = checked_sweep(model, pairs, **{name: given[name] for name in names})
    more = (sweep, given["metric"])
    return lambda budget: plan_of_pair_sweep(model, pairs, *more, budget)


_PLANNERS: dict[Callable, Planner] = {
    path_patch: _of_path_patch,
    activation_patch: _of_activation_patch,
    ablate: _of_ablate,
    pair_sweep: _of_pair_sweep,
}
