"""Ablations and activation patches as plans of reruns, with the positions that they name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ioi_fast.asked.circuit import Circuit
from ioi_fast.asked.interventions import Ablations, ActivationPatch
from ioi_fast.asked.metrics import Metric, vocabulary_tensors
from ioi_fast.asked.nodes import Head, Node, Sender
from ioi_fast.asked.positions import Position, role_position
from ioi_fast.asked.prompts import PromptPairs, first_changed
from ioi_fast.asked.sources import SOURCES
from ioi_fast.model.config import GPT2Config
from ioi_fast.plan.fit_to_memory import Budget
from ioi_fast.plan.rerun_variants import Change, RerunPrompt
from ioi_fast.plan.reruns import RerunPlan, plan_reruns


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A plan, and what its names stand for."""

    plan: RerunPlan
    positions: Mapping[str, Position]
    circuit: Circuit | None


def plan_of_ablations(
    config: GPT2Config,
    pairs: PromptPairs,
    mean_pairs: PromptPairs,
    ablations: Ablations,
    metric: Metric,
    budget: Budget,
) -> Asked:
    """What an `ablate` call asks; raises ValueError for too small a max_memory."""
    positions = {a.position.name: a.position for v in ablations.variants for a in v}
    variants = [
        tuple(_change(ablation.node, "z", ablation.position.name) for ablation in variant)
        for variant in ablations.variants
    ]
    source, circuit = SOURCES[ablations.source], ablations.circuit
    taken: dict[str, object] = {"source": ablations.source}
    if source.of_new:
        taken["source_rows"] = _rows_of_new(pairs, positions, circuit is not None)
    elif source.of_means:
        taken["source_rows"] = int((mean_pairs.new_end + 1).sum())
        taken["mean_last"] = mean_pairs.new_end.tolist()
    if source.by_form:
        taken["forms"] = len(mean_pairs.forms.unique())
    return _asked(config, pairs, variants, positions, taken, circuit, metric, budget)


def plan_of_activation_patch(
    config: GPT2Config,
    pairs: PromptPairs,
    patch: ActivationPatch,
    metric: Metric,
    budget: Budget,
) -> Asked:
    """What an `activation_patch` call asks; raises ValueError for too small a max_memory."""
    positions = {position.name: position for _, position in patch.cells}

    def changes(place: Sender | int, name: str) -> tuple[Change, ...]:
        if isinstance(place, int):
            return (Change(place, patch.site, -1, name),)
        return tuple(_change(head, patch.site, name) for head in place.nodes)

    variants = [changes(place, position.name) for place, position in patch.cells]
    taken = {"source": "new", "source_rows": _rows_of_new(pairs, positions, False)}
    return _asked(config, pairs, variants, positions, taken, None, metric, budget)


def _change(node: Node, site: str, position: str) -> Change:
    if isinstance(node, Head):
        return Change(node.layer, site, node.head, position)
    return Change(node.layer, "mlp_out", -1, position)


def _rows_of_new(pairs: PromptPairs, positions: Mapping[str, Position], circuit: bool) -> int:
    """Tokens of the new run: those from the first change on where it runs as a difference."""
    moved = [p for p in positions.values() if not p.everywhere and not torch.equal(p.orig, p.new)]
    rows = int((pairs.new_end + 1).sum()) if circuit or moved else 0
    if not circuit and len(moved) < len(positions):
        rows += int((pairs.end + 1 - first_changed(pairs)).sum())
    return rows


def _columns(pairs: PromptPairs, positions: Mapping[str, Position], run: str) -> list[tuple]:
    """The token of each position in the "orig" or "new" run, −1 for all, by prompts."""
    columns = [
        [-1] * len(pairs) if one.everywhere else getattr(one, run).tolist()
        for one in positions.values()
    ]
    return list(zip(*columns, strict=True)) if columns else [()] * len(pairs)


def _asked(
    config: GPT2Config,
    pairs: PromptPairs,
    variants: Sequence[tuple[Change, ...]],
    positions: dict[str, Position],
    taken: dict[str, object],
    circuit: Circuit | None,
    metric: Metric,
    budget: Budget,
) -> Asked:
    for _, role in () if circuit is None else circuit.nodes:
        positions.setdefault(role, role_position(role, pairs, "base"))
    names = tuple(positions)
    ends = zip(pairs.end.tolist(), pairs.new_end.tolist(), strict=True)
    first = first_changed(pairs).tolist()
    columns = _columns(pairs, positions, "orig"), _columns(pairs, positions, "new")
    prompts = [
        RerunPrompt(end, max(end, new_end), *at, changed)
        for (end, new_end), *at, changed in zip(ends, *columns, first, strict=True)
    ]
    plan = plan_reruns(
        config,
        prompts,
        names,
        variants,
        **taken,
        roles=None if circuit is None else circuit.roles,
        vocabulary=vocabulary_tensors(metric),
    )
    return Asked(budget.fitted(plan), positions, circuit)
