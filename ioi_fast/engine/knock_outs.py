"""Knock-outs of a path patch: heads and MLPs that are ablated in the orig and in the new run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ioi_fast.asked.interventions import Ablation, KnockOut
from ioi_fast.asked.nodes import Head
from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.asked.sources import SOURCES
from ioi_fast.engine.clean_run import Ablated, Grid, Replaced
from ioi_fast.engine.engine import Engine
from ioi_fast.engine.placement import position_here
from ioi_fast.engine.source_values import Means, SourceValues, clean_run_of_new, mean_tables


def knock_out_means(
    engine: Engine,
    pairs: PromptPairs,
    knock_out: KnockOut,
    together: int,
) -> Means | None:
    """Means over the clean new runs of all prompts, for the outputs that are replaced by them.

    `together` is how many prompts run at once.
    """
    if not SOURCES[knock_out.source].of_means or not knock_out.ablations:
        return None
    sites = {ablation.site for ablation in knock_out.ablations}
    return mean_tables(engine, pairs, knock_out.source, sites, together)


@dataclass(slots=True, eq=False)
class KnockOuts:
    """The knock-outs of a block of prompts, layer by layer."""

    engine: Engine
    ablations: tuple[Ablation, ...]
    sources: SourceValues

    @classmethod
    def of(
        cls,
        engine: Engine,
        pairs: PromptPairs,
        chosen: Tensor,
        knock_out: KnockOut,
        means: Means | None,
    ) -> KnockOuts | None:
        """Those of some prompts, which stand at `chosen` among all; None if there are none."""
        if not knock_out.ablations:
            return None
        ablations = tuple(
            Ablation(ablation.node, position_here(ablation.position, chosen))
            for ablation in knock_out.ablations
        )
        new = None
        if SOURCES[knock_out.source].of_new:
            new = clean_run_of_new(engine, pairs)
        source = (knock_out.source, means, new, "knock_out_source")
        return cls(engine, ablations, SourceValues(engine.config, pairs, *source))

    def step(self) -> None:
        """Goes on to the next layer."""
        self.sources.step()

    def on(self, run: str, layer: int, grid: Grid) -> Ablated:
        """What is replaced in a layer of the "orig" or "new" run, by rows of its grid."""
        replaced: dict[str, Replaced] = {}
        tokens = self.sources.pairs.orig if run == "orig" else self.sources.pairs.new
        for ablation in self.ablations:
            site, at = ablation.site
            if at != layer:
                continue
            where_NT = _wide(ablation.position.where(tokens, run), grid.T)
            value = self.sources.value(site, layer, ablation.position, where_NT, run)
            value = grid.gather(_wide(value, grid.T))
            where = grid.gather(where_NT)
            if isinstance(ablation.node, Head):
                heads_H = torch.arange(self.engine.config.n_head) == ablation.node.head
                where = where[:, None] & heads_H
            before = replaced.get(site)
            if before is not None:
                value = torch.where(where[..., None], value, before.value)
                where = where | before.where
            replaced[site] = Replaced(where, value)
        return replaced


def replaced_by(knock_outs: KnockOuts | None, grid: Grid) -> Callable[[int], Ablated | None]:
    """What knock-outs replace in each layer of the original run."""

    def at(layer: int) -> Ablated | None:
        if knock_outs is None:
            return None
        knock_outs.step()
        return knock_outs.on("orig", layer, grid)

    return at


def _wide(values: Tensor, T: int) -> Tensor:
    """[N, T', ...] cut or filled up with zeros to T tokens; copied only to be filled up."""
    missing = T - values.shape[1]
    if missing <= 0:
        return values[:, :T]
    return F.pad(values, (0, 0) * (values.dim() - 2) + (0, missing))
