"""The fast path: plan → both runs → wave → what follows the receivers → read-out, by blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ioi_fast.asked.interventions import KnockOut
from ioi_fast.asked.metrics import Metric
from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.asked.receivers import Receiver
from ioi_fast.engine.both_runs import Wanted, clean_runs
from ioi_fast.engine.clean_run import Grid, tiles
from ioi_fast.engine.engine import Engine
from ioi_fast.engine.knock_outs import KnockOuts, knock_out_means
from ioi_fast.engine.overwrites import Put, Site, put_of
from ioi_fast.engine.placement import blocks_here, on_host
from ioi_fast.engine.readout import read_out
from ioi_fast.engine.rerun import Rerun, Start
from ioi_fast.engine.rerun_cells import RerunCells
from ioi_fast.engine.wave import Wave
from ioi_fast.engine.wave_graphs import WaveGraphs
from ioi_fast.plan.path_patch import PathPlan
from ioi_fast.plan.path_variants import PathPrompt, tile_variants
from ioi_fast.results.outcome import Advance, Outcome


@torch.no_grad()
def path_patch(
    engine: Engine,
    pairs: PromptPairs,
    plan: PathPlan,
    knock_out: KnockOut,
    metric: Metric,
    advance: Advance,
) -> Outcome:
    """Carries out a plan: base metric [N] and values [S, N] in the caller's order."""
    base = torch.empty(len(pairs), dtype=torch.float32, device="cpu")
    values = torch.zeros(plan.senders, len(pairs), dtype=torch.float32, device="cpu")
    exact = engine.exact
    means = knock_out_means(exact, pairs, knock_out, plan.prompt_blocks.largest)
    graphs = WaveGraphs.of(engine)
    for block, chosen, members in blocks_here(pairs, plan.prompt_blocks):
        prompts = [plan.prompts[index] for index in block]
        wanted = _wanted(plan, prompts) if plan.variants and prompts[0].live else None
        knocked = KnockOuts.of(exact, members, chosen, knock_out, means)
        sites, final = clean_runs(exact, members, wanted, knocked)
        del knocked  # it holds a layer of a run
        values_N, change = read_out(exact, members, chosen, metric, final)
        base[chosen] = values_N.cpu()
        if wanted is None:
            continue
        for variants in plan.variant_blocks:
            senders = plan.variants[variants.start : variants.stop]
            wave = Wave.of(engine, sites, senders, plan.between)
            delta = _final(wave, plan, members, wanted, graphs, advance)
            rows = on_host([variant.index for variant in senders])
            values[rows[:, None], chosen] = change(delta).cpu()
            del wave, delta
        # Before the next block's runs begin: they need the memory.
        del sites, change
    return Outcome(base, values)


def wanted_of(
    prompts: Sequence[PathPrompt], everywhere: bool, until: tuple[int, int], from_layer: int | None
) -> Wanted:
    """What waves over these prompts ask of the two runs."""
    at, new_at, first = (
        torch.tensor([getattr(prompt, name) for prompt in prompts])
        for name in ("at", "new_at", "first_changed")
    )
    return Wanted(at, new_at, first, everywhere, until, from_layer)


def _wanted(plan: PathPlan, prompts: Sequence[PathPrompt]) -> Wanted:
    return wanted_of(prompts, plan.everywhere, plan.new_until, plan.from_layer)


def _final(
    wave: Wave,
    plan: PathPlan,
    pairs: PromptPairs,
    wanted: Wanted,
    graphs: WaveGraphs,
    advance: Advance,
) -> Tensor:
    """Change of the final residual at END, [P, N, D]."""
    received = graphs.run(wave, plan.receivers, advance)
    if plan.receivers is None:
        return received[None]
    cells = rerun_cells_of(pairs, wanted)
    rerun = Rerun(wave.engine, cells, wave.sites.layers)
    parts = []
    for some in tiles(len(wave.variants), tile_variants(len(cells.in_orig))):
        starts = [(variant.reaches, 1) for variant in wave.variants[some]]
        parts.append(rerun.run(_puts(wave, received, cells, wanted, some), starts))
    advance(wave.engine.config.n_layer - min(variant.reaches for variant in wave.variants))
    return torch.cat(parts)


@torch.no_grad()
def first_phase(
    engine: Engine,
    plan: PathPlan,
    pairs: PromptPairs,
    block: Sequence[int],
    knocked: KnockOuts | None,
) -> tuple[RerunCells, dict[Site, list[Put]], list[Start]]:
    """What the first phase leaves for a rerun of the prompts of a block: cells, changes, starts."""
    wanted = _wanted(plan, [plan.prompts[index] for index in block])
    sites, _ = clean_runs(engine.exact, pairs, wanted, knocked)
    wave = Wave.of(engine, sites, plan.variants, plan.between)
    received = wave.to_receivers(plan.receivers, lambda _: None)
    cells = rerun_cells_of(pairs, wanted)
    starts = [(variant.reaches, 1) for variant in plan.variants]
    return cells, _puts(wave, received, cells, wanted, slice(None)), starts


def rerun_cells_of(pairs: PromptPairs, wanted: Wanted) -> RerunCells:
    """The cells on which what follows receivers is recomputed."""
    return RerunCells.since(Grid.of(torch.zeros_like(pairs.end), pairs.end), wanted.first)


def _puts(
    wave: Wave,
    received: dict[Receiver, Tensor],
    cells: RerunCells,
    wanted: Wanted,
    some: slice,
) -> dict[Site, list[Put]]:
    """What some variants put in the place of the receivers, after what knock-outs hold."""
    patched, puts = cells.token <= wanted.at[cells.prompt], _knocked_out(wave)
    for receiver, value in received.items():
        site = (receiver.site, receiver.node.layer)
        puts.setdefault(site, []).append(put_of(wave.engine.config, receiver, value[some], patched))
    return puts


def _knocked_out(wave: Wave) -> dict[Site, list[Put]]:
    """What a knock-out holds where it is in the original run: no difference."""
    return {site: [Put(where[None], None, ())] for site, where in wave.sites.frozen.items()}
