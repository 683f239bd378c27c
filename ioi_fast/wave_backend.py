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
    live = (patch.position.orig == pairs.end) & (patch.position.new == pairs.new_end)
    T = min(pairs.orig.shape[1], pairs.new.shape[1])
    changed = pairs.orig[:, :T] != pairs.new[:, :T]
    first = torch.where(changed.any(1), changed.int().argmax(1), T).minimum(pairs.end)
    columns = (pairs.end, pairs.new_end, first, live)
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
        members = pairs.select(chosen)
        sites = _clean_runs(model, packed, ops, members, work, block)
        base[chosen], change = read_out(model, ops, members, chosen, metric, sites.final)
        live = torch.tensor([work.prompts[index].live for index in block])
        if not live.any():
            continue
        live_sites = _select(sites, live)
        prompts = live.nonzero().squeeze(1)
        for variants in work.variant_blocks:
            senders = work.variants[variants.start : variants.stop]
            delta = run_wave(model, packed, ops, live_sites, senders, work.between, advance)
            rows = torch.tensor([variant.index for variant in senders])
            values[rows[:, None], chosen[prompts]] = change(delta, prompts)
    return Outcome(base, values)


def _clean_runs(
    model: GPT2,
    packed: Packed,
    ops: Ops,
    pairs: PromptPairs,
    work: PathPlan,
    block: tuple[int, ...],
) -> EndSites:
    prompts = [work.prompts[index] for index in block]
    until = work.new_until if any(prompt.live for prompt in prompts) else None
    if not all(prompt.aligned for prompt in prompts):
        return run_apart(model, packed, pairs, until)
    first_changed = torch.tensor([prompt.first_changed for prompt in prompts])
    return run_pair(model, packed, ops, pairs, first_changed, until)


def _select(sites: EndSites, live: torch.Tensor) -> EndSites:
    if live.all():
        return sites
    layers = (sites.resid_mid, sites.pre, sites.delta_z, sites.delta_mlp)
    return EndSites(*([site[live] for site in by_layer] for by_layer in layers), sites.final[live])
