"""The fast path of attention patterns: of a clean run, or of what a path patch leaves behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ioi_fast.asked.interventions import KnockOut
from ioi_fast.asked.nodes import Head
from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.engine.clean_run import CleanRun, Grid, LayerState, tiles
from ioi_fast.engine.engine import Engine
from ioi_fast.engine.knock_outs import KnockOuts, knock_out_means, replaced_by
from ioi_fast.engine.overwrites import Put, Site
from ioi_fast.engine.path_patch import first_phase
from ioi_fast.engine.placement import blocks_here, here, on_host
from ioi_fast.engine.rerun import LayerRun, Rerun
from ioi_fast.kernels import reference
from ioi_fast.plan.blocks import TOKENS_PER_BLOCK
from ioi_fast.plan.path_patch import PathPlan


@torch.no_grad()
def attention(engine: Engine, pairs: PromptPairs, heads: Sequence[Head], run: str) -> Tensor:
    """Patterns of heads in the clean orig or new run, [S, N, T, T]."""
    tokens, end = (pairs.orig, pairs.end) if run == "orig" else (pairs.new, pairs.new_end)
    found = _Patterns.of(heads, tokens)
    for some in tiles(len(tokens), max(1, TOKENS_PER_BLOCK // tokens.shape[1])):
        last = here(end[some])
        grid = Grid.of(torch.zeros_like(last), last, tokens.shape[1])
        clean = CleanRun(engine.exact, grid)
        _walk(clean, here(tokens[some]), found, on_host(range(len(tokens))[some]))
    return found.patterns


@torch.no_grad()
def attention_after(
    engine: Engine,
    pairs: PromptPairs,
    heads: Sequence[Head],
    plan: PathPlan,
    knock_out: KnockOut,
) -> Tensor:
    """Patterns of heads in the last phase of a path patch with one sender, [S, N, T, T]."""
    exact, found = engine.exact, _Patterns.of(heads, pairs.orig)
    means = knock_out_means(exact, pairs, knock_out, plan.prompt_blocks.largest)
    for block, chosen, members in blocks_here(pairs, plan.prompt_blocks):

        def knocked(members: PromptPairs = members, chosen: Tensor = chosen) -> KnockOuts | None:
            return KnockOuts.of(exact, members, chosen, knock_out, means)

        grid = Grid.of(torch.zeros_like(members.end), members.end, pairs.orig.shape[1])
        clean, second = CleanRun(exact, grid), None
        if plan.receivers is not None and plan.variants and plan.prompts[block[0]].live:
            cells, puts, starts = first_phase(engine, plan, members, block, knocked())
            rerun = Rerun(engine, cells, {})
            second = _SecondPhase(rerun, puts, starts[0])
        _walk(clean, members.orig, found, chosen, knocked(), second)
    return found.patterns


def _walk(
    clean: CleanRun,
    tokens: Tensor,
    found: _Patterns,
    prompts: Tensor,
    knock_outs: KnockOuts | None = None,
    second: _SecondPhase | None = None,
) -> None:
    """Walks a run up to the last layer that is asked, with what a second phase changes in it."""
    config, last = clean.engine.config, found.last
    whole = last if second is None else last + 1  # of the last one queries and keys are enough
    resid = clean.embed(tokens)  # what the last layer reads
    ablated = replaced_by(knock_outs, clean.grid)
    for layer, state, _ in clean.walk(tokens, whole, ablated=ablated):
        q, k = state.q, state.k
        if second is not None:
            q, k = second.step(layer, state)
        found.keep(layer, prompts, q, k, config.attention_scale(layer))
        if layer == last - 1:
            resid = state.resid_post
    if second is None:
        q, k, _ = clean.projections(last, resid, False)
        found.keep(last, prompts, q, k, config.attention_scale(last))


@dataclass(frozen=True, slots=True, eq=False)
class _Patterns:
    """The patterns that are asked, filled layer by layer."""

    heads: Sequence[Head]
    patterns: Tensor  # [S, N, T, T]

    @classmethod
    def of(cls, heads: Sequence[Head], tokens: Tensor) -> _Patterns:
        N, T = tokens.shape
        return cls(heads, torch.empty(len(heads), N, T, T, dtype=torch.float32, device="cpu"))

    @property
    def last(self) -> int:
        return max(head.layer for head in self.heads)

    def keep(self, layer: int, prompts: Tensor, q: Tensor, k: Tensor, scale: float) -> None:
        for row, head in enumerate(self.heads):
            if head.layer == layer:
                one = slice(head.head, head.head + 1)
                pattern_N1TT = reference.attention_pattern(q[:, :, one], k[:, :, one], scale)
                self.patterns[row, prompts] = pattern_N1TT[:, 0].cpu()


class _SecondPhase:
    """One variant's rerun beside the original run: what it makes of queries and keys."""

    def __init__(
        self, rerun: Rerun, puts: Mapping[Site, Sequence[Put]], start: tuple[int, int]
    ) -> None:
        self._rerun, self._puts, self._start = rerun, puts, start
        D = rerun.engine.config.n_embd
        self._delta = torch.zeros(1, len(rerun.cells.in_orig), D, dtype=torch.float32)

    def step(self, layer: int, state: LayerState) -> tuple[Tensor, Tensor]:
        """Queries and keys of all heads, [N, T, H, K], after the change."""
        if self._start > (layer, 1):
            return state.q, state.k
        here = {site: puts for (site, at), puts in self._puts.items() if at == layer}
        seen: dict[str, Tensor] = {}
        rerun = Rerun(
            self._rerun.engine,
            self._rerun.cells,
            {layer: self._rerun.cells.lent(state, False)},
        )
        begun = int(self._start <= (layer, 0))
        run = LayerRun(rerun, layer, here, begun, False, seen)
        self._delta = run.run(self._delta)
        heads = torch.tensor(run.heads())
        return tuple(
            self._added(own, seen[site], heads) if site in seen else own
            for site, own in (("q", state.q), ("k", state.k))
        )

    def _added(self, own: Tensor, change: Tensor, heads: Tensor) -> Tensor:
        cells, new = self._rerun.cells, own.clone()
        new[cells.prompt[:, None], cells.token[:, None], heads] += change[0]
        return new
