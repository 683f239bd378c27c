"""The tensors of a block of a sweep over pairs (engine/pair_sweep.py).

Pure Python, no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ioi_fast.plan.memory import reading, reruns
from ioi_fast.plan.memory.both_runs import Asked, clean_runs
from ioi_fast.plan.memory.ledger import Ledger
from ioi_fast.plan.memory.room import of_prompts
from ioi_fast.plan.path_variants import PathPrompt

if TYPE_CHECKING:
    from ioi_fast.plan.pair_sweep import PairPlan


def of_block(plan: PairPlan, prompts: Sequence[PathPrompt]) -> int:
    """Floats at the peak of a block of prompts."""
    ledger, config = Ledger(), plan.config
    waves, asked = bool(plan.variants) and prompts[0].live, Asked.of(plan, prompts, from_layer=1)
    clean_runs(ledger, asked, waves)
    reading.read_out(ledger, config, plan.vocabulary, len(prompts))
    if waves:
        _wave(ledger, plan, asked)
    return ledger.peak


def beside(plan: PairPlan) -> int:
    """Bytes that grow with all prompts, whatever their blocks."""
    return of_prompts([prompt.last for prompt in plan.prompts], 0)


def _wave(ledger: Ledger, plan: PairPlan, asked: Asked) -> None:
    """A wave of all senders, and by layer the reruns of its receivers."""
    config, cells = plan.config, asked.cells.rows
    ledger.take(len(plan.variants) * cells * config.n_embd)
    for layer in range(1, config.n_layer):
        begun = layer * config.n_head
        normed = ledger.take(begun * cells * config.n_embd)
        tile = min(begun, plan.together(asked.rerun_cells.rows))
        for site in plan.inputs:
            _receiver(ledger, plan, asked, layer, site, tile)
        ledger.give(normed)


def _receiver(
    ledger: Ledger, plan: PairPlan, asked: Asked, layer: int, site: str, tile: int
) -> None:
    """What follows from one input of one head, for a tile of senders."""
    config, rerun_cells = plan.config, asked.rerun_cells
    with ledger.call():
        ledger.passing(tile * (asked.cells.rows + rerun_cells.rows) * config.d_head)
        ledger.take(tile * rerun_cells.rows * config.d_head)
        layers = [
            reruns.Layer(
                config,
                rerun_cells,
                asked.orig,
                tile,
                0 if at == layer else tile,
                1 if at == layer else config.n_head,
                at == config.n_layer - 1,
                puts={site: [reruns.Put()]} if at == layer else {},
                live=rerun_cells.differing(site, plan.everywhere) if at == layer else 1.0,
            )
            for at in range(layer, config.n_layer)
        ]
        reruns.rerun(ledger, layers, tile)
    with ledger.call():
        ledger.take(tile * rerun_cells.prompts * config.n_embd)
        reading.change(ledger, config, plan.vocabulary, tile * rerun_cells.prompts)
