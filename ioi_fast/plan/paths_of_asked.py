"""Plans of path patches and pair sweeps, in integers, from what is asked of tensors of prompts."""

from __future__ import annotations

import torch

from ioi_fast.asked.interventions import KnockOut, PairSweep, PathPatch
from ioi_fast.asked.metrics import Metric, vocabulary_tensors
from ioi_fast.asked.positions import Position
from ioi_fast.asked.prompts import PromptPairs, first_changed
from ioi_fast.asked.sources import SOURCES
from ioi_fast.model.gpt2 import GPT2
from ioi_fast.plan.fit_to_memory import Budget
from ioi_fast.plan.pair_sweep import PairPlan, plan_pairs
from ioi_fast.plan.path_patch import PathPlan, plan_path_patch
from ioi_fast.plan.path_variants import Knocked, PathPrompt


def plan_of_path_patch(
    model: GPT2,
    pairs: PromptPairs,
    patch: PathPatch,
    metric: Metric,
    budget: Budget,
) -> PathPlan:
    """The plan of a path patch; raises ValueError for too small a max_memory."""
    plan = plan_path_patch(
        model.config,
        _prompts(pairs, patch.position, patch.receivers is None, patch.knock_out),
        patch.senders,
        patch.receivers,
        everywhere=patch.position.everywhere,
        between=patch.between,
        vocabulary=vocabulary_tensors(metric),
        knocked=[Knocked(*one.site, one.position.everywhere) for one in patch.knock_out.ablations],
        knock_source=patch.knock_out.source,
        forms=_forms(pairs, patch.knock_out),
    )
    return budget.fitted(plan)


def plan_of_pair_sweep(
    model: GPT2,
    pairs: PromptPairs,
    sweep: PairSweep,
    metric: Metric,
    budget: Budget,
) -> PairPlan:
    """The plan of a sweep; raises ValueError for too small a max_memory."""
    plan = plan_pairs(
        model.config,
        _prompts(pairs, sweep.position, to_logits=False),
        sweep.inputs,
        everywhere=sweep.position.everywhere,
        between=sweep.between,
        vocabulary=vocabulary_tensors(metric),
    )
    return budget.fitted(plan)


def _forms(pairs: PromptPairs, knock_out: KnockOut) -> int:
    """Groups of prompts with means of their own."""
    by_form = knock_out.ablations and SOURCES[knock_out.source].by_form
    return len(pairs.forms.unique()) if by_form else 1


def _prompts(
    pairs: PromptPairs, position: Position, to_logits: bool, knock_out: KnockOut | None = None
) -> list[PathPrompt]:
    """What a plan needs to know of the prompts when this position is patched."""
    end = pairs.end
    at, new_at = (end, end) if position.everywhere else (position.orig, position.new)
    # Attention is frozen on the way to the logits, so only END reaches them.
    live = at == end if to_logits else at <= end
    at = at.minimum(end)
    first = first_changed(pairs)
    for ablation in () if knock_out is None else knock_out.ablations:
        # Where a knocked-out role stands elsewhere in new, the runs differ there already.
        one = ablation.position
        if not one.everywhere and not torch.equal(one.orig, one.new):
            first = first.minimum(one.orig).minimum(one.new)
    first = first.minimum(at)
    columns = (end, new_at, first, live, at)
    return [PathPrompt(*row) for row in zip(*(c.tolist() for c in columns), strict=True)]
