"""Means of ablated outputs over clean new runs (paper section 6)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.asked.sources import SOURCES


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
