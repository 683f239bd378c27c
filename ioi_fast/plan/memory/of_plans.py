"""What a block of a plan holds at once at most, in floats.

Pure Python, no torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ioi_fast.asked.sources import SOURCES
from ioi_fast.plan.memory import clean_runs
from ioi_fast.plan.memory.clean_runs import Beside, Held
from ioi_fast.plan.memory.differences import Layer
from ioi_fast.plan.memory.rows import Rows
from ioi_fast.plan.path_variants import PathPrompt, begun_before, tile_variants
from ioi_fast.plan.rerun_variants import RerunPrompt, RerunVariant, shared_states

if TYPE_CHECKING:
    from ioi_fast.plan.pair_sweep import PairPlan
    from ioi_fast.plan.path_patch import PathPlan
    from ioi_fast.plan.reruns import RerunPlan


def of_path_patch(plan: PathPlan, prompts: Sequence[PathPrompt]) -> int:
    """Of a path patch."""
    held, config, others = Held(), plan.config, 0
    variants = max(map(len, plan.variant_blocks), default=1)
    if plan.knocked and SOURCES[plan.knock_source].of_means:
        tables = plan.forms * len({(one.site, one.layer) for one in plan.knocked})
        lasts = [prompt.last for prompt in plan.prompts]
        clean_runs.means(held, config, lasts, len(prompts), tables)
    elif plan.knocked and SOURCES[plan.knock_source].of_new:
        others = clean_runs.by_itself(config, Rows.up_to([prompt.last for prompt in prompts]))
    if _both_runs(held, plan, prompts, others):
        _wave(held, plan, prompts, variants)
        held.phase(clean_runs.change(config, plan.vocabulary, variants * len(prompts)))
    return held.peak


def _both_runs(
    held: Held, plan: PathPlan | PairPlan, prompts: Sequence[PathPrompt], others: int
) -> bool:
    """Both clean runs, and what waves read of them; whether waves follow."""
    config, from_layer, (live, aligned) = plan.config, plan.from_layer, prompts[0].kind
    D, F, last, (until, _) = config.n_embd, config.d_mlp, config.n_layer - 1, plan.new_until
    new = Rows.of([range(p.first_changed if aligned else 0, p.new_at + 1) for p in prompts])
    cells, after = sum(map(plan.cells, prompts)), Rows.of([plan.after(p) for p in prompts])
    waves = bool(plan.variants) and live

    def beside(layer: int) -> Beside:
        replaced = len({one.site for one in plan.knocked if one.layer == layer})
        if not waves:
            return Beside(replaced, 0, 0, False)
        kept, passing = cells * (2 * D + F), (layer == last) * 2 * cells * (D + F)
        if layer <= until:
            kept += 2 * cells * D
            at_end = layer == last or (layer == until and not plan.everywhere)
            if aligned:
                made = clean_runs.as_difference(config, new, at_end, replaced)
            else:
                made = clean_runs.layer(config, new, at_end, replaced)[1]
                made += (new.rows + 4 * cells) * D
            passing = max(passing, made)
        rerun = from_layer is not None and layer >= from_layer
        kept += rerun * clean_runs.kept_for_reruns(config, after, layer == last)
        return Beside(replaced, kept, passing, rerun)

    others += waves * new.rows * D
    orig = Rows.up_to([prompt.end for prompt in prompts])
    clean_runs.walk(held, config, orig, others, beside)
    clean_runs.read_out(held, config, plan.vocabulary, len(prompts))
    return waves


def _wave(held: Held, plan: PathPlan, prompts: Sequence[PathPrompt], variants: int) -> None:
    """The senders up to the logits, or to receivers and from there on; what is left stays."""
    D, K, cells = plan.config.n_embd, plan.config.d_head, sum(map(plan.cells, prompts))
    put_aside = 0  # by MLPs that are knocked out or patched
    if plan.between == "mlps" and any(one.site == "mlp_out" for one in plan.knocked):
        put_aside = variants * cells
    elif plan.between == "mlps" and any(variant.sender.mlps for variant in plan.variants):
        put_aside = min(variants, tile_variants(cells)) * cells
    if plan.receivers is None:
        held.keep(variants * cells * D)
        held.phase(put_aside * D)
        return
    layers = [one.node.layer for one in plan.receivers if one.of_head]
    width = len(layers) * K + (len(plan.receivers) - len(layers)) * D
    begun = min(variants, begun_before(max(layers, default=0), plan.variants))
    received, ends = variants * cells * width, variants * len(prompts) * D
    held.phase(received + variants * cells * D + max(put_aside * D, begun * cells * (D + K)))
    orig, after = Rows.up_to([p.end for p in prompts]), Rows.of([plan.after(p) for p in prompts])
    tile = min(variants, tile_variants(after.rows))
    most = max(
        _after_receivers(plan, orig, after, layer, tile).floats
        for layer in range(plan.from_layer, plan.config.n_layer)
    )
    before = (variants - tile) * len(prompts) * D  # of the tiles before it, at END
    held.phase(received + max(2 * ends, before + tile * after.rows * (width + D) + most))
    held.keep(ends)


def _after_receivers(plan: PathPlan, orig: Rows, after: Rows, layer: int, tile: int) -> Layer:
    config = plan.config
    begun = min(tile, sum(variant.reaches < layer for variant in plan.variants))
    active = min(tile, sum(variant.reaches <= layer for variant in plan.variants))
    here = [receiver for receiver in plan.receivers if receiver.node.layer == layer]
    puts = Counter(receiver.site for receiver in here)
    puts.update({one.site for one in plan.knocked if one.layer == layer})
    heads = config.n_head if begun else len({one.node for one in here if one.of_head})
    sizes = (active, begun, heads, layer == config.n_layer - 1)
    return Layer(config, after, orig, *sizes, puts, begun == active or puts["mlp_in"] > 0)


def of_pair_sweep(plan: PairPlan, prompts: Sequence[PathPrompt]) -> int:
    """Of a sweep over pairs."""
    held, config = Held(), plan.config
    if not _both_runs(held, plan, prompts, 0):
        return held.peak
    D, H, K, last = config.n_embd, config.n_head, config.d_head, config.n_layer - 1
    cells, orig = sum(map(plan.cells, prompts)), Rows.up_to([prompt.end for prompt in prompts])
    after = Rows.of([plan.after(prompt) for prompt in prompts])
    held.keep(len(plan.variants) * cells * D)
    for layer in range(1, config.n_layer):
        senders = layer * H
        tile = min(senders, plan.together(after.rows))
        shared = (config, after, orig, tile)
        put, all_differ = Counter(plan.inputs[:1]), set(plan.inputs) == {"v"}
        most = Layer(*shared, 0, 1, layer == last, put, all_differ).floats
        if layer < last:
            most = max(most, Layer(*shared, tile, H, layer + 1 == last, Counter()).floats)
        made = tile * max(cells * K, after.rows * D) + most
        read = clean_runs.change(config, plan.vocabulary, tile * len(prompts))
        held.phase(senders * cells * D + tile * after.rows * K + made)
        held.phase(senders * cells * D + tile * len(prompts) * D + read)
    return held.peak


def of_reruns(plan: RerunPlan, prompts: Sequence[RerunPrompt]) -> int:
    """Of ablations and activation patches."""
    held, config, others = Held(), plan.config, 0
    if plan.mean_last and plan.sites:
        together = plan.prompt_blocks.largest
        clean_runs.means(held, config, plan.mean_last, together, plan.forms * len(plan.sites))
    orig = Rows.up_to([prompt.end for prompt in prompts])
    cells = Rows.of([plan.cells(prompt) for prompt in prompts])
    apart, beside = plan.runs_of_new(prompts)
    if apart:
        others = clean_runs.by_itself(config, Rows.up_to([prompt.last for prompt in prompts]))
    new = Rows.of([range(one.first_changed, one.end + 1) for one in prompts]) if beside else None
    others += new.rows * config.n_embd if new else 0
    clean_runs.walk(held, config, orig, others, lambda at: _values(plan, at, orig, cells, new))
    clean_runs.read_out(held, config, plan.vocabulary, len(prompts))
    held.keep(_packed_heads(plan))
    together = min(max(1, len(plan.variants)), plan.variants_together(cells.rows))
    for first in range(0, len(plan.variants), together):
        _tile(held, plan, plan.variants[first : first + together], orig, cells)
    ends = together * len(prompts) * config.n_embd
    read = clean_runs.change(config, plan.vocabulary, together * len(prompts))
    held.phase(ends + max(ends, read))
    return held.peak


def _values(plan: RerunPlan, layer: int, orig: Rows, cells: Rows, new: Rows | None) -> Beside:
    """The new run, what is kept of the runs, and the values that variants put in place."""
    config, D = plan.config, plan.config.n_embd
    at_end, replaced = layer == config.n_layer - 1, int(plan.roles is not None)
    passing = clean_runs.as_difference(config, new, at_end) if new else 0
    if layer < plan.first_layer:
        return Beside(replaced, 0, passing, False)
    here = [(site, names) for (site, at), names in plan.changes.items() if at == layer]
    keys = {(site, plan.key(name)) for site, names in here for name in names}
    kept = clean_runs.kept_for_reruns(config, cells, at_end) + len(keys) * cells.rows * D
    made = (2 * cells.rows + 3 * orig.slots) * D
    return Beside(replaced, kept, max(passing, made), True)


def _packed_heads(plan: RerunPlan) -> int:
    """Weights of a circuit's heads, packed for the call; of whole layers the model's are taken."""
    config = plan.config
    layers = range(plan.first_layer + 1, config.n_layer) if plan.roles is not None else ()
    heads = [len(plan.live_heads(layer)) for layer in layers]
    return 4 * sum(n for n in heads if n < config.n_head) * config.n_embd * config.d_head


def _tile(
    held: Held, plan: RerunPlan, some: Sequence[RerunVariant], orig: Rows, cells: Rows
) -> None:
    """A tile of variants through the layers, those that are alike so far as one."""
    config, width = plan.config, cells.rows * plan.config.n_embd
    states, before = shared_states(some, config.n_layer)[0], 0
    masks = len(some) * cells.rows * len(plan.changes) * config.n_head // 4
    for at in range(some[0].start[0], config.n_layer):
        chosen = [some[variant] for variant in states[at].variants]
        active = [variant for variant in chosen if variant.start <= (at, 1)]
        begun = sum(variant.start <= (at, 0) for variant in chosen)
        changes = [change for variant in active for change in variant.at(at)]
        named = {(change.site, change.position) for change in changes}
        puts = Counter(site for site, _ in {(site, plan.key(name)) for site, name in named})
        puts["z"] += plan.roles is not None
        heads = {one.head for one in changes if one.head >= 0}
        heads |= plan.live_heads(at) if begun else set()
        sizes = (len(active), begun, len(heads), at == config.n_layer - 1)
        layer = Layer(config, cells, orig, *sizes, puts, all_differ=False)
        held.phase(masks + len(chosen) * width + max(before, layer.floats))
        before = len(chosen) * width
