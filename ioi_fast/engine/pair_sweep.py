"""The fast path of a sweep over pairs: a wave of all senders, a rerun for each receiver."""

from __future__ import annotations

import torch
from torch import Tensor

from ioi_fast.asked.metrics import Metric
from ioi_fast.asked.nodes import Head
from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.asked.receivers import Receiver
from ioi_fast.engine.both_runs import clean_runs
from ioi_fast.engine.clean_run import tiles
from ioi_fast.engine.engine import Engine
from ioi_fast.engine.overwrites import Put, put_of
from ioi_fast.engine.path_patch import rerun_cells_of, wanted_of
from ioi_fast.engine.placement import blocks_here
from ioi_fast.engine.readout import read_out
from ioi_fast.engine.rerun import Rerun
from ioi_fast.engine.wave import Wave, input_of_head
from ioi_fast.kernels.torch_ops import rows_product
from ioi_fast.plan.pair_sweep import PairPlan
from ioi_fast.results.outcome import Advance, Keep


@torch.no_grad()
def pair_sweep(
    engine: Engine,
    pairs: PromptPairs,
    plan: PairPlan,
    metric: Metric,
    keep: Keep,
    advance: Advance,
) -> Tensor:
    """Carries out a plan: gives every value to `keep`; the base metric [N]."""
    base, exact = torch.empty(len(pairs), dtype=torch.float32, device="cpu"), engine.exact
    for block, chosen, members in blocks_here(pairs, plan.prompt_blocks):
        prompts = [plan.prompts[index] for index in block]
        wanted = None
        if plan.variants and prompts[0].live:
            wanted = wanted_of(prompts, plan.everywhere, plan.new_until, plan.from_layer)
        sites, final = clean_runs(exact, members, wanted)
        values_N, change = read_out(exact, members, chosen, metric, final)
        base[chosen] = values_N.cpu()
        if wanted is None:
            continue
        wave = Wave.of(engine, sites, plan.variants, plan.between)
        cells = rerun_cells_of(members, wanted)
        receivers = _Receivers(plan, Rerun(engine, cells, sites.layers), wanted.at)
        for layer, normed_PCD in wave.inputs_of_heads():
            for head in range(engine.config.n_head):
                for place, some, delta in receivers.of_head(layer, head, normed_PCD):
                    keep(place, some, chosen, change(delta).cpu())
                    advance(len(delta))
                    del delta  # before the next tile's is made
            del normed_PCD  # before the next layer's is made: it is as large as every sender's
        # Before the next block's runs begin: they need the memory.
        del sites, change, wave, receivers
    return base


class _Receivers:
    """What follows when one input of one head is overwritten by what a sender made of it."""

    def __init__(self, plan: PairPlan, rerun: Rerun, at: Tensor) -> None:
        cells = rerun.cells
        self._plan, self._rerun = plan, rerun
        self._patched_M = cells.token <= at[cells.prompt]

    def of_head(self, layer: int, head: int, normed_PCD: Tensor):
        """((input, layer, head), senders, change of the final residual [P, N, D]) by tiles."""
        together = self._plan.together(len(self._patched_M))
        for index, site in enumerate(self._plan.inputs):
            receiver = Receiver(Head(layer, head), site)
            product = input_of_head(self._rerun.engine, layer, site, head)
            for some in tiles(len(normed_PCD), together):
                senders_PCD = normed_PCD[some]
                puts = {(site, layer): [self._put(receiver, rows_product(senders_PCD, product))]}
                delta = self._rerun.run(puts, [(layer, 1)] * len(senders_PCD))
                del puts  # before the next tile's are made
                yield (index, layer, head), some, delta
                del delta

    def _put(self, receiver: Receiver, value_PCK: Tensor) -> Put:
        return put_of(self._rerun.engine.config, receiver, value_PCK, self._patched_M)
