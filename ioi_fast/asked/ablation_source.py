"""What an ablated output is replaced by: the checks and the means of section 6 of the paper."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ioi_fast.asked.interventions import Ablation
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


def groups_of(pairs: PromptPairs, source: str) -> Tensor:
    """Which mean each prompt takes, [N]: its form's, or the one of all prompts."""
    return pairs.forms if SOURCES[source].by_form else torch.zeros_like(pairs.answers)


@dataclass(frozen=True, slots=True, eq=False)
class MeanTable:
    """Mean of a site over clean new runs: at token t over the prompts with END ≥ t."""

    ids: Tensor  # [forms] ascending
    mean: Tensor  # [forms, T, ...]
    count: Tensor  # [forms, T]

    @classmethod
    def of(
        cls, value_new: Tensor, end: Tensor, group: Tensor, ids: Tensor | None = None
    ) -> MeanTable:
        """From values [N, T, ...] of prompts that end at end [N]; one row per id of group [N].

        `ids`, ascending, may name more groups than these prompts have.
        """
        T = value_new.shape[1]
        alive_NT = torch.arange(T) <= end[:, None]
        ids = group.unique() if ids is None else ids
        row_N = torch.searchsorted(ids, group)
        # Values after END may be anything, NaN too.
        value = torch.where(_like(alive_NT, value_new), value_new, 0)
        # One group at a time: all at once would take groups times prompts.
        members = [(row_N == row).nonzero().squeeze(1) for row in range(len(ids))]
        total = torch.stack([value[chosen].sum(0) for chosen in members])
        count_GT = torch.stack([alive_NT[chosen].sum(0) for chosen in members])
        return cls(ids, total / _like(count_GT, total).clamp(min=1), count_GT)

    def joined(self, other: MeanTable) -> MeanTable:
        """The means over the prompts of both, which have the same ids and tokens."""
        count, value = self.count + other.count, self.mean
        share = _like(other.count.float() / count.clamp(min=1).float(), value).to(value.dtype)
        return MeanTable(self.ids, value + (other.mean - value) * share, count)

    def rows(self, group: Tensor, where: Tensor, end: Tensor, argument: str = "source") -> Tensor:
        """Means for prompts of these groups, [N, T, ...]; `where` [N, T] is what will be read.

        Groups are ids of the table. Raises ValueError naming the argument when a cell that matters
        has no prompt to take a mean over.
        """
        T, row = where.shape[1], torch.searchsorted(self.ids, group)
        if self.mean.shape[1] < T:
            padding = T - self.mean.shape[1]
            mean = torch.cat([self.mean, self.mean[:, -1:].expand(-1, padding, *self._inner)], 1)
            count = torch.cat([self.count, self.count.new_zeros(len(self.count), padding)], 1)
        else:
            mean, count = self.mean[:, :T], self.count[:, :T]
        needed = where & (torch.arange(T) <= end[:, None])
        empty = needed & (count[row] == 0)
        if empty.any():
            prompt, token = empty.nonzero()[0].tolist()
            prompts, advice = "prompt of mean_pairs", "give longer mean_pairs"
            if argument != "source":  # knock-outs take their means over pairs
                prompts, advice = "new prompt", "use another source"
            raise ValueError(
                f"{argument}: no {prompts} reaches token {token} (needed for prompt {prompt}); "
                f"{advice}"
            )
        return mean[row]

    @property
    def _inner(self) -> torch.Size:
        return self.mean.shape[2:]


def _like(mask: Tensor, value: Tensor) -> Tensor:
    return mask.view(*mask.shape, *[1] * (value.dim() - mask.dim()))
