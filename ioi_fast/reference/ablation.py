"""Ablation in the reference: which cells of a site belong to a node, and what they become."""

from __future__ import annotations

import torch
from torch import Tensor

from ioi_fast.asked.mean_table import MeanTable, groups_of
from ioi_fast.asked.nodes import Head, Node
from ioi_fast.asked.positions import Position
from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.asked.sources import SOURCES
from ioi_fast.model.config import GPT2Config
from ioi_fast.model.gpt2 import GPT2
from ioi_fast.reference.run import Overwrite, Run, Site, plain_run


def node_cells(
    node: Node, where_NT: Tensor, config: GPT2Config, site: str | None = None
) -> tuple[Site, Tensor]:
    """The site of a node (its output unless named) and its cells at `where` [N, T]."""
    if isinstance(node, Head):
        own_H1 = (torch.arange(config.n_head) == node.head)[:, None]
        return (site or "z", node.layer), where_NT[:, :, None, None] & own_H1
    return (site or "mlp_out", node.layer), where_NT[:, :, None]


def whole_site(value: Tensor) -> Overwrite:
    """Overwrites a whole site: freezes it."""
    return Overwrite(torch.ones(1, dtype=torch.bool), value)


def add(overwrites: dict[Site, list[Overwrite]], key: Site, overwrite: Overwrite) -> None:
    """Appends an overwrite to those of its site."""
    overwrites.setdefault(key, []).append(overwrite)


class Replacements:
    """Values that ablated nodes take in the runs of `pairs`, from clean new runs."""

    def __init__(
        self,
        model: GPT2,
        pairs: PromptPairs,
        mean_pairs: PromptPairs,
        source: str,
        argument: str = "source",
    ) -> None:
        self._config = model.config
        self._pairs = pairs
        self._source, self._kind, self._argument = source, SOURCES[source], argument
        self._mean_pairs = mean_pairs
        self._clean_new: Run | None = None
        self._tables: dict[Site, MeanTable] = {}
        if self._kind.of_means or self._kind.of_new:
            prompts = pairs if self._kind.of_new else mean_pairs
            self._clean_new = plain_run(model, prompts.new, prompts.new_end)

    def overwrite(
        self, node: Node, where_NT: Tensor, position: Position | None = None, run: str = "orig"
    ) -> tuple[Site, Overwrite]:
        """The overwrite that ablates a node at `where` [N, T] of a run.

        `position` says what matches what when values come from the new run (None: token t).
        """
        key, where = node_cells(node, where_NT, self._config)
        return key, Overwrite(where, self._value(key, where_NT, position, run))

    def _value(self, key: Site, where_NT: Tensor, position: Position | None, run: str) -> Tensor:
        if self._kind.of_new:
            return self._from_new(key, where_NT, position, run)
        if not self._kind.of_means:
            return torch.zeros(())
        end = self._pairs.end if run == "orig" else self._pairs.new_end
        groups = groups_of(self._pairs, self._source)
        return self._table(key).rows(groups, where_NT, end, self._argument)

    def _from_new(self, key: Site, where_NT: Tensor, position: Position | None, run: str) -> Tensor:
        value_new = self._clean_new.used[key]
        if run == "new":
            return value_new
        T = where_NT.shape[1]
        if position is not None and not position.everywhere:
            return position.aligned(value_new, T)
        return value_new[:, :T]

    def _table(self, key: Site) -> MeanTable:
        if key not in self._tables:
            prompts = self._mean_pairs
            value, groups = self._clean_new.used[key], groups_of(prompts, self._source)
            self._tables[key] = MeanTable.of(value, prompts.new_end, groups)
        return self._tables[key]
