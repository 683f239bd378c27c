"""The fast path: plan → both runs → wave → read-out, block by block."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ioi_fast.interventions import PathPatch
from ioi_fast.metrics import Metric
from ioi_fast.model import GPT2
from ioi_fast.new_run import EndSites, run_apart, run_pair
from ioi_fast.ops import Ops
from ioi_fast.packing import Packed
from ioi_fast.plan import PathPlan, Prompt, plan_path_patch
from ioi_fast.prompts import PromptPairs
from ioi_fast.readout import needs_vocabulary, read_out
from ioi_fast.reference_backend import Outcome
from ioi_fast.wave import run_wave

Advance = Callable[[int], None]


def plan(
    model: GPT2, pairs: PromptPairs, patch: PathPatch, metric: Metric, max_memory: int | None
) -> PathPlan:
    """The plan of a path patch to the logits; raises ValueError for too small a max_memory."""
    return plan_path_patch(
        model.config,
        _prompts(pairs, patch),
        patch.senders,
        between=patch.between,
        vocabulary=needs_vocabulary(metric),
        max_memory=max_memory,
    )


def _prompts(pairs: PromptPairs, patch: PathPatch) -> list[Prompt]:
    live = patch.position.orig == pairs.end
    T = min(pairs.orig.shape[1], pairs.new.shape[1])
    changed = pairs.orig[:, :T] != pairs.new[:, :T]
    first = torch.where(changed.any(1), changed.int().argmax(1), T).minimum(pairs.end)
    columns = (pairs.end, patch.position.new, first, live)
    return [Prompt(*row) for row in zip(*(c.tolist() for c in columns), strict=True)]


@torch.no_grad()
def path_patch(
    model: GPT2,
    pairs: PromptPairs,
    work: PathPlan,
    metric: Metric,
    ops: Ops,
    advance: Advance,
) -> Outcome:
    """Carries out a plan: base metric [N] and values [S, N] in the caller's order."""
    base = torch.empty(len(pairs))
    values = torch.zeros(len(work.variants), len(pairs))
    packed = Packed.of(model)
    for block in work.prompt_blocks:
        chosen = torch.tensor(block)
        members, prompts = pairs.select(chosen), [work.prompts[index] for index in block]
        sites = _clean_runs(model, packed, ops, members, prompts, work.new_until)
        base[chosen], change = read_out(model, ops, members, chosen, metric, sites.final)
        for variants in work.variant_blocks if prompts[0].live else ():
            senders = work.variants[variants.start : variants.stop]
            delta = run_wave(model, packed, ops, sites, senders, work.between, advance)
            rows = torch.tensor([variant.index for variant in senders])
            values[rows[:, None], chosen] = change(delta)
            del delta
        # Before the next block's runs begin: they need the memory.
        del sites, change
    return Outcome(base, values)


def _clean_runs(
    model: GPT2,
    packed: Packed,
    ops: Ops,
    pairs: PromptPairs,
    prompts: list[Prompt],
    until: tuple[int, int],
) -> EndSites:
    """The runs of a block, whose prompts are of one kind: live or not, aligned or not."""
    if prompts[0].live and not prompts[0].aligned:
        new_at = torch.tensor([prompt.new_at for prompt in prompts])
        return run_apart(model, packed, pairs, new_at, until)
    first_changed = torch.tensor([prompt.first_changed for prompt in prompts])
    return run_pair(model, packed, ops, pairs, first_changed, until if prompts[0].live else None)
