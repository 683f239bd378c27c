"""The public calls: validate, choose a backend, run, label."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ioi_fast import attention_backend, ops, reference_backend, rerun_backend, wave_backend
from ioi_fast.ablation_source import check_matches_everywhere, check_source
from ioi_fast.backends import Choice, check_request, choose, why_not_cpu
from ioi_fast.interventions import (
    PathPatch,
    check_choice,
    heads_of,
    parse_activation_patch,
    parse_path_patch,
    parse_variants,
)
from ioi_fast.metrics import Metric, check_metric
from ioi_fast.model import GPT2
from ioi_fast.plan import PathPlan
from ioi_fast.prompts import PromptPairs
from ioi_fast.reference_backend import Outcome
from ioi_fast.rerun_work import RerunPlan, plan_ablations, plan_activation_patch
from ioi_fast.results import Result, provenance
from ioi_fast.running import bar, check_threads, threads_set
from ioi_fast.sites import parse_senders


def path_patch(
    model: GPT2,
    pairs: PromptPairs,
    senders: object = "heads",
    receivers: object = "logits",
    position: object = "END",
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
    too (between="nothing"). values [S, N]; effect [L, H] for "heads", [L] for "mlps", [S] for a
    list. Raises TypeError or ValueError naming the argument, RuntimeError when a named backend
    can't run the call.

    >>> result = ioi_fast.path_patch(model, pairs)          # doctest: +SKIP
    >>> result.effect.shape                                 # doctest: +SKIP
    torch.Size([6, 8])
    """
    patch = _checked_patch(
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
    with threads_set(threads):
        outcome, ran = _run_path_patch(model, pairs, patch, metric, choice, max_memory, progress)
        return Result(
            values=outcome.values.float(),
            base=outcome.base.float(),
            senders=tuple(str(sender) for sender in patch.senders),
            shape=_sender_shape(model, senders, len(patch.senders)),
            backend=ran,
            precision=precision,
            provenance=provenance(model, pairs, metric, _definition(patch)),
        )


def _checked_patch(model: GPT2, pairs: PromptPairs, metric: Metric, **asked: object) -> PathPatch:
    """The intervention that arguments of `path_patch` ask for, all of them checked."""
    _check_inputs(model, pairs)
    check_metric(metric)
    patch = parse_path_patch(pairs, model.config, **asked)
    if patch.knock_out.ablations:
        check_source(patch.knock_out.source, pairs, pairs, "knock_out_source")
        everywhere = any(one.position.everywhere for one in patch.knock_out.ablations)
        if patch.knock_out.source == "new" and everywhere:
            check_matches_everywhere(pairs)
    return patch


def _run_path_patch(
    model: GPT2,
    pairs: PromptPairs,
    patch: PathPatch,
    metric: Metric,
    choice: Choice,
    max_memory: int | None,
    progress: bool,
) -> tuple[Outcome, str]:
    if choice.backend == "cpu":
        work = wave_backend.plan(model, pairs, patch, metric, max_memory)
        table = ops.cpu()
        with bar(work.steps, "path patch", progress) as advance:
            outcome = wave_backend.path_patch(
                model, pairs, work, patch.knock_out, metric, table, advance
            )
        return outcome, table.backend
    exact = _reference(model, choice)
    with bar(len(patch.senders), "path patch", progress) as advance:
        return reference_backend.path_patch(exact, pairs, patch, metric, advance), "reference"


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
    _check_inputs(model, pairs)
    check_metric(metric)
    patch = parse_activation_patch(pairs, model.config, site=site, position=position, heads=heads)
    choice = choose(model, backend, precision, max_memory)
    with threads_set(threads):
        if choice.backend == "cpu":
            work = plan_activation_patch(model.config, pairs, patch, max_memory)
            outcome, ran = _rerun(model, pairs, pairs, work, metric, progress)
        else:
            exact, ran = _reference(model, choice), "reference"
            with bar(len(patch.cells), "activation patch", progress) as advance:
                outcome = reference_backend.activation_patch(exact, pairs, patch, metric, advance)
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

    A variant is a dict {"9.9": role or "all", "mlp0": …}; values [P, N]. With a Circuit as base
    every other head is ablated everywhere and each of its heads at all positions but its role, and
    `base` is the metric of that run: F(C∖K) = base + values. Means are taken over `mean_pairs`
    (default: pairs). Raises as `path_patch` does.

    >>> ioi_fast.ablate(model, pairs, [{"4.1": "END"}, {"mlp0": "all"}])    # doctest: +SKIP
    """
    _check_inputs(model, pairs)
    check_metric(metric)
    ablations = parse_variants(pairs, model.config, variants, source, base)
    mean_pairs = pairs if mean_pairs is None else mean_pairs
    _check_inputs(model, mean_pairs, "mean_pairs")
    check_source(source, pairs, mean_pairs, "source")
    choice = choose(model, backend, precision, max_memory)
    with threads_set(threads):
        if choice.backend == "cpu":
            work = plan_ablations(model.config, pairs, ablations, max_memory)
            outcome, ran = _rerun(model, pairs, mean_pairs, work, metric, progress)
        else:
            exact, ran = _reference(model, choice), "reference"
            with bar(len(ablations.variants), "ablate", progress) as advance:
                outcome = reference_backend.ablate(
                    exact, pairs, mean_pairs, ablations, metric, advance
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


def attention(
    model: GPT2,
    pairs: PromptPairs,
    heads: object,
    run: str = "orig",
    after: Mapping | None = None,
    precision: str = "fp32",
    backend: str = "auto",
    threads: int | None = None,
) -> Tensor:
    """Attention patterns of heads, [S, N, T, T] float32 by (query, key).

    `heads` is "heads" or a list like ["9.9", "10.0"]; `run` is "orig" or "new". With `after`, the
    arguments of a `path_patch` with one sender, the run is that patch's last phase. Rows of queries
    after a prompt's END mean nothing. Raises as `path_patch` does.

    >>> ioi_fast.attention(model, pairs, ["9.9"])[0, 0, -1]    # doctest: +SKIP
    """
    _check_inputs(model, pairs)
    chosen = heads_of(parse_senders(heads, model.config, "heads"))
    check_choice(run, ("orig", "new"), "run")
    patch = None if after is None else _parse_after(model, pairs, run, after)
    choice = choose(model, backend, precision, None)
    with threads_set(threads):
        if choice.backend == "cpu" and patch is None:
            return attention_backend.attention(model, pairs, chosen, run, ops.cpu())
        if choice.backend == "cpu":
            return attention_backend.attention_after(model, pairs, chosen, patch, ops.cpu())
        exact = _reference(model, choice)
        if patch is None:
            return reference_backend.attention(exact, pairs, chosen, run)
        passes = reference_backend.PathPasses.of(exact, pairs, patch)
        return reference_backend.read_patterns(passes.patched(patch.senders[0]), chosen)


def _rerun(
    model: GPT2,
    pairs: PromptPairs,
    mean_pairs: PromptPairs,
    work: RerunPlan,
    metric: Metric,
    progress: bool,
) -> tuple[Outcome, str]:
    table = ops.cpu()
    with bar(work.steps, "reruns", progress) as advance:
        outcome = rerun_backend.run(model, pairs, mean_pairs, work, metric, table, advance)
    return outcome, table.backend


def _parse_after(model: GPT2, pairs: PromptPairs, run: str, after: Mapping) -> PathPatch:
    if run != "orig":
        raise ValueError(f"run must be 'orig' with after, since that patches orig; got {run!r}")
    if not isinstance(after, Mapping):
        raise TypeError(f"after must be a dict of path_patch arguments, got {after!r}")
    defaults = {
        "receivers": "logits",
        "position": "END",
        "between": "mlps",
        "knock_out": None,
        "knock_out_source": "mean",
    }
    unknown = sorted(set(after) - set(defaults) - {"senders"})
    if unknown or "senders" not in after:
        problem = f"unknown {unknown[0]!r}" if unknown else "no senders"
        raise ValueError(f"after must hold senders and arguments of path_patch, got {problem}")
    patch = _checked_patch(model, pairs, "logit_diff", **{**defaults, **after})
    if len(patch.senders) != 1:
        raise ValueError(
            f"after: expected one sender or one group like [['8.6', '8.10']], "
            f"got {len(patch.senders)}"
        )
    return patch


def explain(call: Callable, model: GPT2, pairs: PromptPairs, **arguments: object) -> PathPlan:
    """The plan of a call without running it; print it for rows, bytes and FLOPs.

    Raises as the call itself does, and ValueError for a call that has no plan.

    >>> print(ioi_fast.explain(ioi_fast.path_patch, model, pairs))    # doctest: +SKIP
    """
    if call is not path_patch:
        raise ValueError(f"call must be ioi_fast.path_patch, got {call!r}")
    bound = inspect.signature(path_patch).bind(model, pairs, **arguments)
    bound.apply_defaults()
    given = bound.arguments
    names = ("senders", "receivers", "position", "between", "knock_out", "knock_out_source")
    asked = {name: given[name] for name in names}
    patch = _checked_patch(model, pairs, given["metric"], **asked)
    check_request(given["backend"], given["precision"], given["max_memory"])
    check_threads(given["threads"])
    reason = why_not_cpu(model, given["precision"])
    if given["backend"] not in ("auto", "cpu"):
        reason = f"backend is {given['backend']!r}"
    if reason:
        raise ValueError(f"call: only the fast path has a plan, and {reason}")
    return wave_backend.plan(model, pairs, patch, given["metric"], given["max_memory"])


def _check_inputs(model: GPT2, pairs: PromptPairs, argument: str = "pairs") -> None:
    if not isinstance(model, GPT2):
        raise TypeError(
            f"model must be an ioi_fast.GPT2 (ioi_fast.load makes one), got {type(model).__name__}"
        )
    if not isinstance(pairs, PromptPairs):
        raise TypeError(f"{argument} must be PromptPairs, got {type(pairs).__name__}")
    pairs.check_vocabulary(model.config.vocab_size, argument)
    for name, tokens in (("orig", pairs.orig), ("new", pairs.new)):
        if tokens.shape[1] > model.config.n_positions:
            raise ValueError(
                f"{argument}.{name} has {tokens.shape[1]} tokens, the model takes at most "
                f"{model.config.n_positions}"
            )


def _reference(model: GPT2, choice: Choice) -> GPT2:
    exact = torch.float64 if choice.precision == "fp64" else torch.float32
    return model.to(device="cpu", dtype=exact)
