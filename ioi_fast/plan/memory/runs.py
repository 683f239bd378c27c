"""The tensors of clean runs, layer by layer (engine/clean_run.py, both_runs.py, source_values.py).

Pure Python, no torch.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ioi_fast.asked.sources import SOURCES, Source
from ioi_fast.model.config import GPT2Config
from ioi_fast.plan.memory.ledger import Ledger
from ioi_fast.plan.memory.rows import Rows


@dataclass(frozen=True, slots=True)
class State:
    """What a layer leaves beside the residual before it (base.LayerState), in floats."""

    rows: int  # of everything after the attention
    qkv: int
    others: int  # z, resid_mid, pre, mlp_out, and those that were replaced
    at_end: bool


def embed(ledger: Ledger, config: GPT2Config, tokens: Rows) -> int:
    """CleanRun.embed: two look-ups and their sum."""
    ledger.passing(3 * tokens.rows * config.n_embd)
    return ledger.take(tokens.rows * config.n_embd)


def layer(
    ledger: Ledger,
    config: GPT2Config,
    tokens: Rows,
    at_end: bool,
    replaced: Collection[str] = (),
) -> State:
    """CleanRun.layer, of which `replaced` sites are overwritten."""
    D, F = config.n_embd, config.d_mlp
    R = tokens.prompts if at_end else tokens.rows
    qkv = _projections(ledger, config, tokens, at_end)
    held = ledger.held
    _mixed(ledger, config, tokens, at_end)
    if "z" in replaced:
        ledger.take(R * D)
    ledger.passing(2 * R * D + (R * D if at_end else 0))  # the product, its sum, END's residual
    ledger.take(2 * R * D + R * F)  # resid_mid, pre and mlp_out
    if "mlp_out" in replaced:
        ledger.take(R * D)
    return State(R, qkv, ledger.held - held, at_end)


def give(ledger: Ledger, state: State) -> None:
    """Lets go of a layer."""
    ledger.give(state.others + state.qkv)


def _projections(ledger: Ledger, config: GPT2Config, tokens: Rows, at_end: bool) -> int:
    """q, k and v, of rows and then by slots; with at_end q of END alone."""
    D, parts = config.n_embd, 2 if at_end else 3
    queries = tokens.prompts * D if at_end else 0
    with ledger.call():
        ledger.take(tokens.rows * D + queries)  # normalised
        ledger.take(parts * tokens.rows * D)
        if tokens.unlike:
            ledger.take(parts * tokens.slots * D)
    return ledger.take(parts * tokens.slots * D + queries)


def _mixed(ledger: Ledger, config: GPT2Config, tokens: Rows, at_end: bool) -> int:
    """z, by slots and then by rows; at END plain sums."""
    D = config.n_embd
    if at_end:
        ledger.passing(tokens.slots * (D + 2 * config.n_head))
        return ledger.take(tokens.prompts * D)
    if tokens.unlike:
        ledger.passing((tokens.slots + tokens.rows) * D)
    return ledger.take(tokens.rows * D)


@dataclass(slots=True)
class NewByItself:
    """SourceValues.step: the new run layer by layer, all of a layer held until the next."""

    config: GPT2Config
    tokens: Rows
    state: State | None = None
    resid: int = 0

    def step(self, ledger: Ledger) -> None:
        """Goes on to a layer."""
        if self.state is None:
            self.resid = embed(ledger, self.config, self.tokens)
        else:
            ledger.passing(self.resid)  # the next residual is made, then the layer goes
            give(ledger, self.state)
        self.state = layer(ledger, self.config, self.tokens, at_end=False)

    def end(self, ledger: Ledger) -> None:
        """The last layer goes."""
        if self.state is not None:
            give(ledger, self.state)
            ledger.give(self.resid)


def made_by_slots(config: GPT2Config, source: str, slots: int, new: Rows | None) -> int:
    """SourceValues.value: what a value takes before some of it is picked. Means come by slots, so
    do sites of a new run whose prompts have unlike many rows; others stand there already."""
    if SOURCES[source].of_means:
        return slots * config.n_embd
    if SOURCES[source].of_new and new is not None and new.unlike:
        return new.slots * config.n_embd
    return 0


def value(
    ledger: Ledger, config: GPT2Config, source: str, rows: int, slots: int, new: Rows | None
) -> int:
    """SourceValues.value, gathered by rows."""
    if rows < slots:
        ledger.passing(made_by_slots(config, source, slots, new) + rows * config.n_embd)
    elif SOURCES[source] == Source():
        return 0  # one row stands for all
    return ledger.take(rows * config.n_embd)


def means(
    ledger: Ledger,
    config: GPT2Config,
    last: Sequence[int],
    together: int,
    sites: Collection[tuple[str, int]],
    forms: int,
) -> None:
    """source_values.mean_tables: the clean runs that means are over, so many prompts at a time on
    as many tokens as the longest has; the tables stay."""
    D, T = config.n_embd, max(last) + 1
    table, known = forms * T * D, set()
    for first in range(0, len(last), together):
        tokens = Rows.up_to(last[first : first + together], T)
        resid, layers = embed(ledger, config, tokens), max(layer for _, layer in sites) + 1
        for at in range(layers):
            state = layer(ledger, config, tokens, at_end=False)
            for site in {("z", at), ("mlp_out", at)} & set(sites):
                _mean_table(ledger, tokens.slots * D, tokens.unlike, table, forms)
                ledger.take(0 if site in known else table)
                known.add(site)
            after = ledger.take(tokens.rows * D if at + 1 < layers else 0)
            give(ledger, state)
            ledger.give(resid)
            resid = after


def _mean_table(ledger: Ledger, slots: int, unlike: bool, table: int, forms: int) -> None:
    """MeanTable.of and joined: values by slots, those that count, and a form's at a time."""
    with ledger.call():
        ledger.take(2 * slots if unlike else slots)
        ledger.passing(slots // forms + table)
        ledger.passing(3 * table)
    ledger.passing(4 * table)
