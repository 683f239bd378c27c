"""The tensors of a block of a path patch (engine/path_patch.py, engine/wave.py).

Pure Python, no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ioi_fast.asked.sources import SOURCES
from ioi_fast.plan.memory import reading, reruns, runs
from ioi_fast.plan.memory.both_runs import Asked, clean_runs
from ioi_fast.plan.memory.ledger import Ledger
from ioi_fast.plan.memory.room import of_prompts
from ioi_fast.plan.memory.rows import Rows
from ioi_fast.plan.path_variants import PathPrompt, begun_before, tile_variants

if TYPE_CHECKING:
    from ioi_fast.plan.path_patch import PathPlan


def of_means(plan: PathPlan, together: int) -> Ledger:
    """knock_outs.knock_out_means: the tables stay."""
    ledger = Ledger()
    if plan.knocked and SOURCES[plan.knock_source].of_means:
        sites = {(one.site, one.layer) for one in plan.knocked}
        last = [prompt.last for prompt in plan.prompts]
        runs.means(ledger, plan.config, last, together, sites, plan.forms)
    return ledger


def of_block(plan: PathPlan, prompts: Sequence[PathPrompt], variants: int) -> int:
    """Floats at the peak of a block of prompts, with so many senders together."""
    ledger = of_means(plan, len(prompts))
    asked = _asked(plan, prompts)
    waves = bool(plan.variants) and prompts[0].live
    clean_runs(ledger, asked, waves)
    reading.read_out(ledger, plan.config, plan.vocabulary, len(prompts))
    if waves:
        _wave(ledger, plan, asked, variants)
    return ledger.peak


def beside(plan: PathPlan) -> int:
    """Bytes that grow with all prompts, whatever their blocks."""
    return of_prompts([prompt.last for prompt in plan.prompts], plan.senders)


def _asked(plan: PathPlan, prompts: Sequence[PathPrompt]) -> Asked:
    clean_new = None
    if plan.knocked and SOURCES[plan.knock_source].of_new:
        clean_new = Rows.up_to([prompt.last for prompt in prompts])
    knocked = {"knocked": plan.knocked, "source": plan.knock_source, "clean_new": clean_new}
    if plan.variants and prompts[0].live:
        return Asked.of(plan, prompts, plan.from_layer, **knocked)
    orig, none = Rows.up_to([prompt.end for prompt in prompts]), Rows(0, len(prompts), 0)
    return Asked(plan.config, orig, none, none, 0, True, False, (0, 0), **knocked)


def _wave(ledger: Ledger, plan: PathPlan, asked: Asked, variants: int) -> None:
    """path_patch._final, and the change of the metric."""
    config, cells, n = plan.config, asked.cells.rows, asked.orig.prompts
    if plan.receivers is None:
        ledger.take(variants * cells * config.n_embd)
        _first_phase(ledger, plan, cells, variants)
    else:
        received = _to_receivers(ledger, plan, cells, variants)
        _rerun(ledger, plan, asked, variants)
        ledger.give(received)
    reading.change(ledger, config, plan.vocabulary, variants * n)


def _first_phase(ledger: Ledger, plan: PathPlan, cells: int, variants: int) -> None:
    """Wave._write_mlps: cells that are knocked out, and rows that do not go through an MLP."""
    D = plan.config.n_embd
    if plan.between == "mlps" and any(one.site == "mlp_out" for one in plan.knocked):
        everywhere = any(one.everywhere for one in plan.knocked if one.site == "mlp_out")
        share = cells if everywhere else min(cells, len(plan.prompts))
        ledger.passing(variants * share * D)
    if plan.between == "mlps" and any(variant.sender.mlps for variant in plan.variants):
        ledger.passing(min(variants, tile_variants(cells)) * cells * D)


def _to_receivers(ledger: Ledger, plan: PathPlan, cells: int, variants: int) -> int:
    """Wave.to_receivers: what is left is what each receiver read."""
    config, received = plan.config, 0
    delta = ledger.take(variants * cells * config.n_embd)
    for layer in sorted({receiver.node.layer for receiver in plan.receivers}):
        here = [receiver for receiver in plan.receivers if receiver.node.layer == layer]
        heads = sum(receiver.of_head for receiver in here)
        received += ledger.take(heads * variants * cells * config.d_head)
        begun = min(begun_before(layer, plan.variants), variants)
        if heads:
            ledger.passing(begun * cells * (config.n_embd + config.d_head))
        received += ledger.take((len(here) - heads) * variants * cells * config.n_embd)
        _first_phase(ledger, plan, cells, variants)
    ledger.give(delta)
    return received


def _rerun(ledger: Ledger, plan: PathPlan, asked: Asked, variants: int) -> None:
    """What follows the receivers, in tiles; what is left are differences at END."""
    config, rerun_cells = plan.config, asked.rerun_cells
    tile = min(variants, tile_variants(rerun_cells.rows))
    ends = rerun_cells.prompts * config.n_embd
    with ledger.call():
        ledger.take((variants - tile) * ends)  # of the tiles before it
        for receiver in plan.receivers:
            width = config.d_head if receiver.of_head else config.n_embd
            ledger.take(tile * rerun_cells.rows * width)
        layers = [_layer(plan, asked, layer, tile) for layer in _layers(plan)]
        reruns.rerun(ledger, layers, tile)
    ledger.passing(2 * variants * ends)
    ledger.take(variants * ends)


def _layers(plan: PathPlan) -> range:
    return range(plan.from_layer, plan.config.n_layer)


def _layer(plan: PathPlan, asked: Asked, layer: int, tile: int) -> reruns.Layer:
    """A layer of a tile of variants."""
    config, rerun_cells = plan.config, asked.rerun_cells
    starts = sorted(variant.reaches for variant in plan.variants)
    begun = min(tile, sum(start < layer for start in starts))
    active = min(tile, sum(start <= layer for start in starts))
    here = [receiver for receiver in plan.receivers if receiver.node.layer == layer]
    puts: dict[str, list[reruns.Put]] = {}
    for one in plan.knocked:
        if one.layer == layer:
            puts[one.site] = [reruns.Put(valued=False)]
    for receiver in here:
        puts.setdefault(receiver.site, []).append(reruns.Put())
    named = {receiver.node for receiver in here if receiver.of_head}
    sites = {receiver.site for receiver in here}
    all_live = begun == active or "mlp_in" in sites
    live = 1.0 if all_live else rerun_cells.differing(sites, plan.everywhere)
    return reruns.Layer(
        config,
        rerun_cells,
        asked.orig,
        active,
        begun,
        config.n_head if begun else len(named),
        layer == config.n_layer - 1,
        puts=puts,
        live=live,
    )
