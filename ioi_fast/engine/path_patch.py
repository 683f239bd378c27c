"""The fast path: plan → both runs → wave → what follows the receivers → read-out, by blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ioi_fast.asked.interventions import KnockOut
from ioi_fast.asked.metrics import Metric
from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.asked.sites import Receiver
from ioi_fast.engine.both_runs import Wanted, clean_runs
from ioi_fast.engine.clean_run import Grid, tiles
from ioi_fast.engine.engine import Engine
from ioi_fast.engine.knock_outs import KnockOuts, knock_out_means
from ioi_fast.engine.overwrites import Put, Site, put_of
from ioi_fast.engine.placement import blocks_here, on_host
from ioi_fast.engine.readout import read_out
from ioi_fast.engine.replays import Replays
from ioi_fast.engine.rerun import Rerun, Start
from ioi_fast.engine.tail import Tail
from ioi_fast.engine.wave import Wave
from ioi_fast.plan.path_patch import PathPlan
from ioi_fast.plan.work import Prompt, tile_variants
from ioi_fast.results.outcome import Advance, Outcome


@torch.no_grad()
def path_patch(
    engine: Engine,
    pairs: PromptPairs,
    work: PathPlan,
    knock_out: KnockOut,
    metric: Metric,
    advance: Advance,
) -> Outcome:
    """Carries out a plan: base metric [N] and values [S, N] in the caller's order."""
    base = torch.empty(len(pairs), dtype=torch.float32, device="cpu")
    values = torch.zeros(work.senders, len(pairs), dtype=torch.float32, device="cpu")
    exact = engine.exact
    means = knock_out_means(exact, pairs, knock_out, work.prompt_blocks.largest)
    replays = Replays.of(engine)
    for block, chosen, members in blocks_here(pairs, work.prompt_blocks):
        prompts = [work.prompts[index] for index in block]
        wanted = _wanted(work, prompts) if work.variants and prompts[0].live else None
        knocked = KnockOuts.of(exact, members, chosen, knock_out, means)
        sites, final = clean_runs(exact, members, wanted, knocked)
        del knocked  # it holds a layer of a run
        values_N, change = read_out(exact, members, chosen, metric, final)
        base[chosen] = values_N.cpu()
        if wanted is None:
            continue
        for variants in work.variant_blocks:
            senders = work.variants[variants.start : variants.stop]
            wave = Wave.of(engine, sites, senders, work.between)
            delta = _final(wave, work, members, wanted, replays, advance)
            rows = on_host([variant.index for variant in senders])
            values[rows[:, None], chosen] = change(delta).cpu()
            del wave, delta
        # Before the next block's runs begin: they need the memory.
        del sites, change
    return Outcome(base, values)


def wanted_of(
    prompts: Sequence[Prompt], everywhere: bool, until: tuple[int, int], from_layer: int | None
) -> Wanted:
    """What waves over these prompts ask of the two runs."""
    at, new_at, first = (
        torch.tensor([getattr(prompt, name) for prompt in prompts])
        for name in ("at", "new_at", "first_changed")
    )
    return Wanted(at, new_at, first, everywhere, until, from_layer)


def _wanted(work: PathPlan, prompts: Sequence[Prompt]) -> Wanted:
    return wanted_of(prompts, work.everywhere, work.new_until, work.from_layer)


def _final(
    wave: Wave,
    work: PathPlan,
    pairs: PromptPairs,
    wanted: Wanted,
    replays: Replays,
    advance: Advance,
) -> Tensor:
    """Change of the final residual at END, [P, N, D]."""
    received = replays.run(wave, work.receivers, advance)
    if work.receivers is None:
        return received[None]
    tail = tail_of(pairs, wanted)
    rerun = Rerun(wave.engine, tail, wave.sites.tail)
    parts = []
    for some in tiles(len(wave.variants), tile_variants(len(tail.in_orig))):
        starts = [(variant.reaches, 1) for variant in wave.variants[some]]
        parts.append(rerun.run(_puts(wave, received, tail, wanted, some), starts))
    advance(wave.engine.config.n_layer - min(variant.reaches for variant in wave.variants))
    return torch.cat(parts)


@torch.no_grad()
def first_phase(
    engine: Engine,
    work: PathPlan,
    pairs: PromptPairs,
    block: Sequence[int],
    knocked: KnockOuts | None,
) -> tuple[Tail, dict[Site, list[Put]], list[Start]]:
    """What the first phase leaves for a rerun of the prompts of a block: cells, changes, starts."""
    wanted = _wanted(work, [work.prompts[index] for index in block])
    sites, _ = clean_runs(engine.exact, pairs, wanted, knocked)
    wave = Wave.of(engine, sites, work.variants, work.between)
    received, tail = wave.to_receivers(work.receivers, lambda _: None), tail_of(pairs, wanted)
    starts = [(variant.reaches, 1) for variant in work.variants]
    return tail, _puts(wave, received, tail, wanted, slice(None)), starts


def tail_of(pairs: PromptPairs, wanted: Wanted) -> Tail:
    """The cells on which what follows receivers is recomputed."""
    return Tail.since(Grid.of(torch.zeros_like(pairs.end), pairs.end), wanted.first)


def _puts(
    wave: Wave, received: dict[Receiver, Tensor], tail: Tail, wanted: Wanted, some: slice
) -> dict[Site, list[Put]]:
    """What some variants put in the place of the receivers, after what knock-outs hold."""
    patched, puts = tail.token <= wanted.at[tail.prompt], _knocked_out(wave)
    for receiver, value in received.items():
        site = (receiver.site, receiver.node.layer)
        puts.setdefault(site, []).append(put_of(wave.engine.config, receiver, value[some], patched))
    return puts


def _knocked_out(wave: Wave) -> dict[Site, list[Put]]:
    """What a knock-out holds where it is in the original run: no difference."""
    return {site: [Put(where[None], None, ())] for site, where in wave.sites.frozen.items()}
