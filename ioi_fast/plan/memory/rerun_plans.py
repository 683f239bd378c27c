"""The tensors of a block of ablations or activation patches (engine/reruns.py).

Pure Python, no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ioi_fast.asked.sources import SOURCES
from ioi_fast.plan.flops import FlopCount
from ioi_fast.plan.memory import reading, reruns, runs
from ioi_fast.plan.memory.both_runs import NewRun, kept_for_reruns
from ioi_fast.plan.memory.ledger import Ledger
from ioi_fast.plan.memory.room import of_prompts
from ioi_fast.plan.memory.rows import Rows
from ioi_fast.plan.rerun_variants import RerunPrompt, RerunVariant, shared_states

if TYPE_CHECKING:
    from ioi_fast.plan.reruns import RerunPlan


@dataclass(frozen=True, slots=True)
class Step:
    """A layer of a tile: the states before it and in it, of which the first differ before it and
    the next in it."""

    layer: int
    before: int
    states: int
    active: int
    begun: int
    heads: int
    puts: tuple[tuple[str, int], ...]  # how many differences at each site
    frozen: bool  # whether heads of a circuit are held
    live: float  # share of rows that go through the MLP


@dataclass(slots=True)
class Tiles:
    """What tiles of variants come to, whatever the prompts: equal layers are counted once."""

    plan: RerunPlan
    known: dict[int, tuple[set[Step], int]] = field(default_factory=dict)

    def of(self, together: int) -> tuple[set[Step], int]:
        """The layers of all tiles of so many variants, and the most masks of one."""
        if together not in self.known:
            variants, steps, masks = self.plan.variants, set(), 0
            for first in range(0, len(variants), together):
                some = variants[first : first + together]
                steps |= set(self._steps(some))
                masks = max(masks, self._masks(some))
            self.known[together] = (steps, masks)
        return self.known[together]

    def _masks(self, some: Sequence[RerunVariant]) -> int:
        """Bytes a cell that say where sites of these variants are overwritten."""
        H, by_site = self.plan.config.n_head, {}
        for variant in some:
            for change in variant.changes:
                by_site[change.site, change.layer] = 1 if change.head < 0 else H
        return len(some) * sum(by_site.values())

    def _steps(self, some: Sequence[RerunVariant]) -> list[Step]:
        plan = self.plan
        layers, _ = shared_states(some, plan.config.n_layer)
        starts, steps = [variant.start for variant in some], []
        counted, cells = self._counted()
        before = [frozenset[int]()]
        for layer, states in enumerate(layers):
            after, rows = [], 0
            for parent, variant in zip(states.parents, states.variants, strict=True):
                step = counted.step(layer, before[parent], some[variant].at(layer))
                after.append(step.cells)
                rows += step.rows
            if layer >= starts[0][0]:
                own = [starts[variant] for variant in states.variants]
                active = [v for v in states.variants if starts[v] <= (layer, 1)]
                out = 1 if layer == plan.config.n_layer - 1 else cells
                live = round(rows / max(1, len(active) * out), 2)
                previous = len(before) if layer > starts[0][0] else 0
                counts = (previous, len(own), len(active), sum(s <= (layer, 0) for s in own))
                steps.append(self._step(layer, counts, [some[v] for v in active], live))
            before = after
        return steps

    def _counted(self) -> tuple[FlopCount, int]:
        """How differences spread in the longest prompt, and how many cells it has."""
        plan = self.plan
        prompt = max(plan.prompts, key=lambda one: one.end)
        at = dict(zip(plan.names, prompt.at, strict=True))
        return FlopCount(plan.config, prompt.end, at, plan.roles), len(plan.cells(prompt))

    def _step(
        self,
        layer: int,
        counts: tuple[int, int, int, int],
        active: Sequence[RerunVariant],
        live: float,
    ) -> Step:
        plan, before, states, differ, begun = self.plan, *counts
        changes = [change for variant in active for change in variant.at(layer)]
        keys = {(change.site, plan.key(change.position)) for change in changes}
        sites = sorted({site for site, _ in keys})
        puts = tuple((site, sum(site == one for one, _ in keys)) for site in sites)
        heads = {change.head for change in changes if change.head >= 0}
        if begun:
            heads |= plan.live_heads(layer)
        frozen = plan.roles is not None
        return Step(layer, before, states, differ, begun, len(heads), puts, frozen, live)


def of_means(plan: RerunPlan) -> Ledger:
    """source_values.mean_tables: the tables stay."""
    ledger = Ledger()
    if plan.mean_last and plan.sites:
        together = plan.prompt_blocks.largest
        runs.means(ledger, plan.config, plan.mean_last, together, plan.sites, plan.forms)
    return ledger


def of_block(plan: RerunPlan, prompts: Sequence[RerunPrompt], tiles: Tiles) -> int:
    """Floats at the peak of a block of prompts."""
    ledger, config = of_means(plan), plan.config
    rerun_cells = Rows.of([plan.cells(prompt) for prompt in prompts])
    orig = Rows.up_to([prompt.end for prompt in prompts])
    _walk(ledger, plan, prompts, orig, rerun_cells)
    reading.read_out(ledger, config, plan.vocabulary, len(prompts))
    if plan.variants:
        _variants(ledger, plan, orig, rerun_cells, tiles)
    return ledger.peak


def beside(plan: RerunPlan) -> int:
    """Bytes that grow with all prompts, whatever their blocks."""
    own = of_prompts([prompt.last for prompt in plan.prompts], plan.asked)
    # Prompts of means, which may be the same, are looked at before or after.
    return max(own, of_prompts(plan.mean_last, 0))


def _walk(
    ledger: Ledger, plan: RerunPlan, prompts: Sequence[RerunPrompt], orig: Rows, rerun_cells: Rows
) -> None:
    """reruns._Walk: the base run, new beside it, and what is kept of them."""
    config, D = plan.config, plan.config.n_embd
    apart, beside = plan.runs_of_new(prompts)
    alone, difference = None, None
    new = Rows.up_to([prompt.last for prompt in prompts]) if apart else None
    if new is not None:
        alone = runs.NewByItself(config, new)
    if beside:
        cells = Rows.of([range(prompt.first_changed, prompt.end + 1) for prompt in prompts])
        difference = NewRun(config, cells, orig)
        difference.begin(ledger)
    resid = runs.embed(ledger, config, orig)
    for at in range(config.n_layer):
        if alone is not None:
            alone.step(ledger)
        ablated = 0
        if plan.roles is not None:
            ablated = runs.value(ledger, config, plan.source, orig.rows, orig.slots, new)
        at_end = at == config.n_layer - 1
        state = runs.layer(ledger, config, orig, at_end, {"z"} if ablated else ())
        sites = difference.step(ledger, at_end, at_end) if difference is not None else 0
        kept = 0
        if at >= plan.first_layer:
            kept = kept_for_reruns(ledger, config, rerun_cells, state)
            _keep_values(ledger, plan, at, orig, rerun_cells, new)
        after = ledger.take(state.rows * D)
        runs.give(ledger, state)
        ledger.give(sites + ablated + resid)
        ledger.take(kept)
        resid = after
    if alone is not None:
        alone.end(ledger)
    if difference is not None:
        ledger.give(difference.delta)


def _keep_values(
    ledger: Ledger, plan: RerunPlan, at: int, orig: Rows, rerun_cells: Rows, new: Rows | None
) -> None:
    """Differences to the base of every site that some variant changes in this layer."""
    D, size = plan.config.n_embd, rerun_cells.rows * plan.config.n_embd
    for (site, layer), names in plan.changes.items():
        if layer != at:
            continue
        for key in {plan.key(name) for name in names}:
            if SOURCES[plan.source].of_new and not key and plan.roles is None:
                ledger.passing(2 * size)  # the change that new makes, at some cells of all
            else:
                made = runs.made_by_slots(plan.config, plan.source, orig.slots, new)
                made += 2 * orig.rows * D if site == "attn_out" else 0
                ledger.passing(made + 3 * size)
            ledger.take(size)


def _variants(ledger: Ledger, plan: RerunPlan, orig: Rows, rerun_cells: Rows, tiles: Tiles) -> None:
    """reruns.run: a tile of variants after the other."""
    config = plan.config
    together = min(len(plan.variants), plan.variants_together(rerun_cells.rows))
    steps, masks = tiles.of(together)
    ledger.take(masks * rerun_cells.rows // 4)
    for step in steps:
        puts = {site: [reruns.Put()] * count for site, count in step.puts}
        if step.frozen:
            puts["z"] = [reruns.Put(valued=False), *puts.get("z", ())]
        layer = reruns.Layer(
            config,
            rerun_cells,
            orig,
            step.active,
            step.begun,
            step.heads,
            step.layer == config.n_layer - 1,
            puts=puts,
            live=min(1.0, step.live),
            packed=plan.roles is not None,
        )
        # The first tile packs the heads of a layer when it comes there.
        until = step.layer if together == len(plan.variants) else config.n_layer - 1
        with ledger.call():
            ledger.take(_packed_heads(plan, until))
            reruns.shared_step(ledger, layer, step.before, step.states)
    ledger.take(_packed_heads(plan, config.n_layer - 1))
    ledger.passing(2 * together * rerun_cells.prompts * config.n_embd)
    with ledger.call():
        ledger.take(together * rerun_cells.prompts * config.n_embd)
        reading.change(ledger, config, plan.vocabulary, together * rerun_cells.prompts)


def _packed_heads(plan: RerunPlan, until: int) -> int:
    """Weights of a circuit's heads up to a layer, packed for the call; of whole layers the
    model's are taken."""
    config = plan.config
    packed = 0
    # In the first layer in which anything differs only what is overwritten is written.
    for layer in range(plan.first_layer + 1, until + 1) if plan.roles is not None else ():
        heads = len(plan.live_heads(layer))
        packed += heads if heads < config.n_head else 0
    return 4 * packed * config.n_embd * config.d_head
