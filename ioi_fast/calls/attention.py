"""`attention`: what heads attend to, in a clean run or after a path patch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from ioi_fast.asked.interventions import PathPatch, check_choice, heads_of
from ioi_fast.asked.nodes import Head, parse_senders
from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.calls.checks import check_inputs, exact_model
from ioi_fast.calls.choose_backend import Choice, choose
from ioi_fast.calls.path_patch import checked_patch
from ioi_fast.calls.surroundings import surroundings
from ioi_fast.engine import attention as fast
from ioi_fast.engine import choose_ops
from ioi_fast.engine.engine import Engine
from ioi_fast.model.gpt2 import GPT2
from ioi_fast.plan.fit_to_memory import Budget
from ioi_fast.plan.paths_of_asked import plan_of_path_patch
from ioi_fast.reference import calls as reference


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
    with surroundings(threads):
        check_inputs(model, pairs)
        chosen = heads_of(parse_senders(heads, model.config, "heads"))
        check_choice(run, ("orig", "new"), "run")
        patch = None if after is None else _parse_after(model, pairs, run, after)
        choice = choose(model, backend, precision, None)
        if choice.backend != "reference":
            return _fast(model, pairs, chosen, run, patch, choice)
        exact = exact_model(model, choice)
        if patch is None:
            return reference.attention(exact, pairs, chosen, run)
        passes = reference.PathPasses.of(exact, pairs, patch)
        return reference.read_patterns(passes.patched(patch.senders[0]), chosen)


def _fast(
    model: GPT2,
    pairs: PromptPairs,
    heads: Sequence[Head],
    run: str,
    patch: PathPatch | None,
    choice: Choice,
) -> Tensor:
    table = choose_ops.table_of(choice.backend, choice.precision, model.device)
    plan = (
        None if patch is None else plan_of_path_patch(model, pairs, patch, "logit_diff", Budget())
    )
    with table.workspace():
        if plan is None:
            return fast.attention(Engine.of(model, table), pairs, heads, run)
        return fast.attention_after(Engine.of(model, table), pairs, heads, plan, patch.knock_out)


def _parse_after(model: GPT2, pairs: PromptPairs, run: str, after: Mapping) -> PathPatch:
    if run != "orig":
        raise ValueError(f"run must be 'orig' with after, since that patches orig; got {run!r}")
    if not isinstance(after, Mapping):
        raise TypeError(f"after must be a dict of path_patch arguments, got {after!r}")
    defaults = {
        "receivers": "logits",
        "position": "auto",
        "between": "mlps",
        "knock_out": None,
        "knock_out_source": "mean",
    }
    unknown = sorted(set(after) - set(defaults) - {"senders"}, key=str)
    if unknown or "senders" not in after:
        problem = f"unknown {unknown[0]!r}" if unknown else "no senders"
        raise ValueError(f"after must hold senders and arguments of path_patch, got {problem}")
    patch = checked_patch(model, pairs, "logit_diff", **{**defaults, **after})
    if len(patch.senders) != 1:
        raise ValueError(
            f"after: expected one sender or one group like [['8.6', '8.10']], "
            f"got {len(patch.senders)}"
        )
    return patch
