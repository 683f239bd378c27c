"""Whether what an ablated output is replaced by is defined (paper section 6)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from ioi_fast.asked.interventions import Ablation
from ioi_fast.asked.mean_table import MeanTable, groups_of
from ioi_fast.asked.nodes import Node
from ioi_fast.asked.positions import Position, check_matches_by_token
from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.asked.sources import SOURCES


def check_source(source: str, pairs: PromptPairs, mean_pairs: PromptPairs, argument: str) -> None:
    """Raises ValueError when a mean by form is asked of prompts without (matching) forms."""
    if not SOURCES[source].by_form:
        return
    for name, prompts in (("pairs", pairs), ("mean_pairs", mean_pairs)):
        if prompts.forms is None:
            raise ValueError(f"{argument}={source!r} needs {name}.forms, which is None")
    missing = sorted(set(pairs.forms.tolist()) - set(mean_pairs.forms.tolist()))
    if missing:
        raise ValueError(f"{argument}={source!r}: mean_pairs has no prompt of form {missing[0]}")


def check_new_values(
    pairs: PromptPairs,
    variants: Iterable[Sequence[Ablation]],
    argument: str,
    circuit: bool = False,
) -> None:
    """Raises ValueError when it isn't defined which value of the new run an ablated output takes.

    At all positions, as a circuit ablates too, token t of new must stand for token t of orig. Roles
    of one output that stand on the same token must do so in new.
    """
    variants = list(variants)
    if circuit or any(one.position.everywhere for variant in variants for one in variant):
        check_matches_by_token(pairs, f"{argument}='new' at all positions matches")
    for variant in variants:
        of_node: dict[Node, list[Position]] = {}
        for one in variant:
            for other in of_node.setdefault(one.node, []):
                _check_same_value(one.node, other, one.position, argument)
            of_node[one.node].append(one.position)


def _check_same_value(node: Node, one: Position, other: Position, argument: str) -> None:
    if one.everywhere or other.everywhere:
        return
    torn = ((one.orig == other.orig) & (one.new != other.new)).nonzero().flatten()
    if len(torn):
        prompt = int(torn[0])
        raise ValueError(
            f"{argument}='new': {node} would take two values in prompt {prompt}, where "
            f"{one.name} and {other.name} both stand at {int(one.orig[prompt])} in orig, and at "
            f"{int(one.new[prompt])} and {int(other.new[prompt])} in new; name one of them"
        )


def check_reached(
    source: str,
    pairs: PromptPairs,
    mean_pairs: PromptPairs,
    positions: Iterable[Position],
    argument: str,
) -> None:
    """Raises ValueError when no prompt has a mean for a position of the original prompts."""
    if not SOURCES[source].of_means:
        return
    tokens = torch.zeros(*mean_pairs.new.shape, 0)  # only where they end counts
    table = MeanTable.of(tokens, mean_pairs.new_end, groups_of(mean_pairs, source))
    groups = groups_of(pairs, source)
    for position in positions:
        table.rows(groups, position.where(pairs.orig), pairs.end, argument)
