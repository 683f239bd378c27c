"""The definition of every intervention, by plain runs and overwriting (paper section 3).

One sender at a time, one full run per phase. Everything fast is held against this file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ioi_fast.asked.interventions import Ablations, ActivationPatch, KnockOut, PairSweep, PathPatch
from ioi_fast.asked.metrics import Metric, Reading
from ioi_fast.asked.nodes import Head, Sender
from ioi_fast.asked.positions import Position
from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.asked.receivers import Receiver
from ioi_fast.model.gpt2 import GPT2
from ioi_fast.reference.ablation import Replacements, add, node_cells, whole_site
from ioi_fast.reference.run import Overwrite, Run, Site, plain_run
from ioi_fast.results.outcome import Advance, Keep, Outcome

Overwrites = dict[Site, list[Overwrite]]


def path_patch(
    model: GPT2, pairs: PromptPairs, patch: PathPatch, metric: Metric, advance: Advance
) -> Outcome:
    """Path patching by four passes; A and B serve all senders, since no sender changes them."""
    passes = PathPasses.of(model, pairs, patch)
    runs = _each(patch.senders, passes.patched, advance)
    return _outcome(passes.orig, (run.logits for run in runs), pairs, metric)


@dataclass(frozen=True, slots=True, eq=False)
class PathPasses:
    """Passes A (new) and B (orig), from which passes C and D of any sender are made."""

    model: GPT2
    pairs: PromptPairs
    patch: PathPatch
    new: Run
    orig: Run
    knock_out: Overwrites

    @classmethod
    def of(cls, model: GPT2, pairs: PromptPairs, patch: PathPatch) -> PathPasses:
        """Runs passes A and B, both under the knock-outs."""
        in_new = _knocked_out(model, pairs, patch.knock_out, "new")
        in_orig = _knocked_out(model, pairs, patch.knock_out, "orig")
        new = plain_run(model, pairs.new, pairs.new_end, in_new)
        orig = plain_run(model, pairs.orig, pairs.end, in_orig)
        return cls(model, pairs, patch, new, orig, in_orig)

    def patched(self, sender: Sender) -> Run:
        """Pass D: the original run with every receiver overwritten by what pass C computed.

        With the logits as receiver that is pass C itself, read at END.
        """
        direct = self._direct(sender)
        if self.patch.receivers is None:
            return direct
        overwrites = _copy(self.knock_out)
        where_NT = self.patch.position.where(self.pairs.orig)
        for receiver in self.patch.receivers:
            key, where = node_cells(receiver.node, where_NT, self.model.config, receiver.site)
            add(overwrites, key, Overwrite(where, direct.computed[key]))
        return plain_run(self.model, self.pairs.orig, self.pairs.end, overwrites)

    def _direct(self, sender: Sender) -> Run:
        """Pass C: heads frozen by pass B's q, k and v, knock-outs, then the sender from pass A."""
        overwrites: Overwrites = {}
        frozen = ("q", "k", "v") if self.patch.between == "mlps" else ("q", "k", "v", "mlp_out")
        for layer in range(self.model.config.n_layer):
            for name in frozen:
                add(overwrites, (name, layer), whole_site(self.orig.used[name, layer]))
        for key, entries in self.knock_out.items():
            overwrites[key] = overwrites.get(key, []) + entries
        where_NT = self.patch.position.where(self.pairs.orig)
        for node in sender.nodes:
            key, where = node_cells(node, where_NT, self.model.config)
            value = self.patch.position.aligned(self.new.used[key], self.pairs.orig.shape[1])
            add(overwrites, key, Overwrite(where, value))
        return plain_run(self.model, self.pairs.orig, self.pairs.end, overwrites)


def pair_sweep(
    model: GPT2, pairs: PromptPairs, sweep: PairSweep, metric: Metric, keep: Keep, advance: Advance
) -> Tensor:
    """A path patch of every earlier head for each receiver; the base metric [N]."""
    L, H, none = model.config.n_layer, model.config.n_head, KnockOut((), "mean")
    heads = [Head(layer, head) for layer in range(L) for head in range(H)]
    base, prompts = (
        path_patch(
            model,
            pairs,
            PathPatch((Sender((heads[0],)),), None, sweep.position, sweep.between, none),
            metric,
            lambda _: None,
        ).base,
        torch.arange(len(pairs)),
    )
    for index, site in enumerate(sweep.inputs):
        for head in heads[H:]:
            senders = tuple(Sender((one,)) for one in heads if one.layer < head.layer)
            receivers = (Receiver(head, site),)
            patch = PathPatch(senders, receivers, sweep.position, sweep.between, none)
            values = path_patch(model, pairs, patch, metric, advance).values
            keep((index, head.layer, head.head), slice(0, len(senders)), prompts, values)
    return base


def activation_patch(
    model: GPT2, pairs: PromptPairs, patch: ActivationPatch, metric: Metric, advance: Advance
) -> Outcome:
    """One plain run per (place, position) with the site overwritten by the new run's."""
    new = plain_run(model, pairs.new, pairs.new_end)
    orig = plain_run(model, pairs.orig, pairs.end)
    T = pairs.orig.shape[1]

    def patched(cell: tuple[Sender | int, Position]) -> Run:
        place, position = cell
        overwrites: Overwrites = {}
        where_NT = position.where(pairs.orig)
        for node in place.nodes if isinstance(place, Sender) else (place,):
            if isinstance(node, Head):
                key, where = node_cells(node, where_NT, model.config, patch.site)
            else:
                key, where = (patch.site, node), where_NT[:, :, None]
            add(overwrites, key, Overwrite(where, position.aligned(new.used[key], T)))
        return plain_run(model, pairs.orig, pairs.end, overwrites)

    runs = _each(patch.cells, patched, advance)
    return _outcome(orig, (run.logits for run in runs), pairs, metric)


def ablate(
    model: GPT2,
    pairs: PromptPairs,
    mean_pairs: PromptPairs,
    ablations: Ablations,
    metric: Metric,
    advance: Advance,
) -> Outcome:
    """One plain run per variant, over the model or over a circuit (section 6)."""
    replacements = Replacements(model, pairs, mean_pairs, ablations.source)
    base_overwrites = _circuit_overwrites(model, pairs, replacements, ablations)
    base = plain_run(model, pairs.orig, pairs.end, base_overwrites)

    def ablated(variant: tuple) -> Run:
        overwrites = _copy(base_overwrites)
        for ablation in variant:
            where_NT = ablation.position.where(pairs.orig)
            add(overwrites, *replacements.overwrite(ablation.node, where_NT, ablation.position))
        return plain_run(model, pairs.orig, pairs.end, overwrites)

    runs = _each(ablations.variants, ablated, advance)
    return _outcome(base, (run.logits for run in runs), pairs, metric)


def _circuit_overwrites(
    model: GPT2, pairs: PromptPairs, replacements: Replacements, ablations: Ablations
) -> Overwrites:
    overwrites: Overwrites = {}
    if ablations.circuit is None:
        return overwrites
    everywhere_NT = torch.ones(pairs.orig.shape, dtype=torch.bool)
    tokens_T = torch.arange(pairs.orig.shape[1])
    for layer in range(model.config.n_layer):
        for index in range(model.config.n_head):
            head = Head(layer, index)
            where_NT = everywhere_NT
            for role in ablations.circuit.roles.get(head, ()):
                where_NT = where_NT & (tokens_T != pairs.positions[role][:, None])
            add(overwrites, *replacements.overwrite(head, where_NT))
    return overwrites


def attention(model: GPT2, pairs: PromptPairs, heads: Iterable[Head], run: str) -> Tensor:
    """Patterns of heads in the clean orig or new run, [S, N, T, T]."""
    tokens, end = (pairs.orig, pairs.end) if run == "orig" else (pairs.new, pairs.new_end)
    return read_patterns(plain_run(model, tokens, end), heads)


def read_patterns(run: Run, heads: Iterable[Head]) -> Tensor:
    """Patterns of heads in a run, [S, N, T, T] float32."""
    patterns = [run.used["pattern", head.layer][:, head.head] for head in heads]
    return torch.stack(patterns).float()


def _knocked_out(model: GPT2, pairs: PromptPairs, knock_out: KnockOut, run: str) -> Overwrites:
    overwrites: Overwrites = {}
    if not knock_out.ablations:
        return overwrites
    replacements = Replacements(model, pairs, pairs, knock_out.source, "knock_out_source")
    tokens = pairs.orig if run == "orig" else pairs.new
    for ablation in knock_out.ablations:
        where_NT = ablation.position.where(tokens, run)
        add(overwrites, *replacements.overwrite(ablation.node, where_NT, ablation.position, run))
    return overwrites


def _copy(overwrites: Overwrites) -> Overwrites:
    return {key: list(entries) for key, entries in overwrites.items()}


def _each(items: Iterable, make: Callable, advance: Advance) -> Iterable[Run]:
    for item in items:
        yield make(item)
        advance(1)


def _outcome(base: Run, logits: Iterable[Tensor], pairs: PromptPairs, metric: Metric) -> Outcome:
    prompt_N = torch.arange(len(pairs))
    reading = Reading(metric, pairs.answers, pairs.wrong_answers, base.logits, prompt_N)
    base_N = reading.base()
    values = [reading.values(logits_NV, prompt_N) - base_N for logits_NV in logits]
    return Outcome(base_N, torch.stack(values))
