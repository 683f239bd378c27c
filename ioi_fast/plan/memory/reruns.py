"""The tensors of reruns: a layer of differences, and all layers of some variants (rerun.py).

Pure Python, no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ioi_fast.model.config import GPT2Config
from ioi_fast.plan.memory.ledger import Ledger
from ioi_fast.plan.memory.rows import Rows


@dataclass(frozen=True, slots=True)
class Put:
    """What overwrites a site: whether it has values, and whether it adds them."""

    valued: bool = True
    added: bool = False


@dataclass(frozen=True, slots=True)
class Layer:
    """rerun.LayerRun: a layer of so many variants, of which the first have begun before it."""

    config: GPT2Config
    cells: Rows
    tokens: Rows  # of the original run, whose keys and values are read
    variants: int
    begun: int
    heads: int  # that can differ
    at_end: bool = False
    seen: bool = False  # whether every site is kept
    puts: Mapping[str, Sequence[Put]] = field(default_factory=dict)
    live: float = 1.0  # the share of rows that go through the MLP
    packed: bool = False  # whether weights of some heads are kept, and counted elsewhere

    @property
    def out(self) -> int:
        """Floats of a difference after the attention."""
        return self.variants * self._rows_out * self.config.n_embd

    @property
    def _rows_out(self) -> int:
        return self.cells.prompts if self.at_end else self.cells.rows

    def _wide(self, variants: int, rows: int) -> int:
        """Floats of the heads that can differ."""
        return variants * rows * self.heads * self.config.d_head

    def run(self, ledger: Ledger) -> int:
        """The layer, beside the difference before it; what comes back are the difference after it,
        and with `seen` every site."""
        begin, D = ledger.held, self.config.n_embd
        whole = self.variants * self.cells.rows * D
        before = self._put(ledger, "resid_pre", whole)
        self._attention(ledger)
        if self.at_end:
            ledger.passing(self.variants * self.cells.prompts * D)
        if self.seen:
            ledger.take(self.out)
        self._put(ledger, "resid_mid", self.out, replaces=not self.seen)
        ledger.give(0 if self.seen else before)
        self._mlp(ledger)
        if not self.seen:
            ledger.held = begin
            return ledger.take(self.out)
        return ledger.held - begin

    def _picked(self, ledger: Ledger, parts: int) -> None:
        """Rerun.of_heads: weights of some heads, picked and packed for the layer or the call."""
        if self.heads < self.config.n_head:
            copies = 1 if self.packed else 2
            ledger.passing(copies * parts * self._wide(1, self.config.n_embd))

    def _put(self, ledger: Ledger, site: str, size: int, replaces: bool = False) -> int:
        """LayerRun._put: each one makes the site anew."""
        puts = self.puts.get(site, ())
        if not puts:
            return 0
        added = any(put.added for put in puts)
        ledger.passing((2 if len(puts) > 1 or added else 1) * size)
        return 0 if replaces else ledger.take(size)

    def _attention(self, ledger: Ledger) -> None:
        """LayerRun._attention: z and what it writes, which is left."""
        begin = ledger.held
        if not self.heads:
            ledger.take(self.out)
        else:
            self.attended(ledger)
            self._picked(ledger, 1)
            ledger.take(self.out)
        self._put(ledger, "attn_out", self.out, replaces=not self.seen)
        if not self.seen:
            ledger.held = begin
            ledger.take(self.out)

    def attended(self, ledger: Ledger) -> None:
        """LayerRun.attended: z is left, with `seen` q, k and v too."""
        z, R = self.puts.get("z", ()), self._rows_out
        mixed = self.begun
        if any(self.puts.get(site) for site in "qkv"):
            mixed = self.variants
        if mixed == self.variants:
            self._mixed(ledger, mixed)
            return
        ledger.take(self._wide(self.variants, R))
        if mixed:
            with ledger.call():
                self._mixed(ledger, mixed)
        if z:
            ledger.passing(self._wide(self.variants - mixed, R) * (2 if len(z) > 1 else 1))

    def _mixed(self, ledger: Ledger, variants: int) -> None:
        """LayerRun._mixed: queries, keys and values, by rows and by slots, and z."""
        begin = ledger.held
        queries = self.cells.prompts if self.at_end else self.cells.rows
        slots = self.cells.slots
        joint = self._projections(ledger, variants, queries)
        made = {"q": joint[0], "k": joint[1], "v": joint[2]}
        sizes = {"q": queries, "k": self.cells.rows, "v": self.cells.rows}
        shared = joint[3]  # goes when all of q, k and v are made anew
        for site in "qkv":
            if self.puts.get(site):
                self._put(
                    ledger, site, self._wide(variants, sizes[site]), replaces=bool(made[site])
                )
                if not made[site]:
                    made[site] = self._wide(variants, sizes[site])
        kept = ledger.held - begin if self.seen else 0
        if self.cells.unlike:
            self._by_slots(ledger, variants, made, shared)
        self._table(ledger, variants)
        with ledger.call():
            if self.heads < self.config.n_head:
                q = self.cells.prompts if self.at_end else slots
                ledger.take(self._wide(1, q + 2 * self.tokens.slots))
            ledger.take(self._wide(variants, self.cells.prompts if self.at_end else slots))
        z = self._wide(variants, self._rows_out)
        if self.cells.unlike and not self.at_end:
            ledger.take(self._wide(variants, slots))  # what comes out, and then its rows
        ledger.take(z)
        if any(put.added for put in self.puts.get("z", ())):
            ledger.passing(2 * z)
        ledger.held = begin + kept
        ledger.take(z)

    def _by_slots(self, ledger: Ledger, variants: int, made: dict[str, int], shared: int) -> None:
        """k and v by slots, then q; rows go when that is made, one storage with its last part."""
        slots = self._wide(variants, self.cells.slots)
        ledger.take(2 * slots)
        rows = made["k"] + made["v"] + (shared if made["q"] else 0)
        ledger.give(0 if self.seen else rows)
        if not self.at_end:
            ledger.take(slots)
            ledger.give(0 if self.seen else made["q"] or shared)

    def _projections(
        self, ledger: Ledger, variants: int, queries: int
    ) -> tuple[int, int, int, int]:
        """LayerRun._projections: q, k and v, each by itself, and what they share."""
        rows, all_heads = self.cells.rows, self.heads == self.config.n_head
        sizes = [self._wide(variants, n) for n in (queries, rows, rows)]
        own = [0, 0, 0, 0]
        if not self.begun:
            for size in sizes:
                ledger.take(size)
            return (*sizes, 0)
        normed = ledger.take(self.begun * rows * self.config.n_embd)
        self._picked(ledger, 3)
        if self.at_end:
            ends = self._wide(self.begun, queries)
            if all_heads:
                ledger.passing(2 * ends)
                own = [ledger.take(ends), 0, 0, ledger.take(self._wide(self.begun, 2 * rows))]
            else:
                shared = ledger.take(self._wide(self.begun, 3 * rows))
                own = [ledger.take(ends), 0, 0, shared]
        else:
            own = [0, 0, 0, ledger.take(self._wide(self.begun, 3 * rows))]
        if self.begun == variants:
            ledger.give(normed)
            return tuple(own)
        for size in sizes:
            ledger.take(size)
        ledger.give(normed + sum(own))
        return (*sizes, 0)

    def _table(self, ledger: Ledger, variants: int) -> None:
        """puts.head_table: codes of a byte, and the values of each put, by slots."""
        instead = [put for put in self.puts.get("z", ()) if not put.added]
        if not instead:
            return
        if self.heads < self.config.n_head:  # of these heads
            ledger.take(self._wide(sum(put.valued for put in instead), self._rows_out))
        slots = self.cells.prompts if self.at_end else self.cells.slots
        codes = variants * slots * self.heads // 4
        ledger.passing(3 * codes)
        ledger.take(codes)
        values = sum(put.valued for put in instead)
        if values and self.cells.unlike and not self.at_end:
            ledger.passing(self._wide(values, self._rows_out + slots))
        ledger.take(self._wide(values, slots))

    def _mlp(self, ledger: Ledger) -> None:
        """LayerRun._add_mlp, or what the MLP adds where something is overwritten there."""
        puts = self.puts.get("mlp_in", ()), self.puts.get("mlp_out", ())
        D = self.config.n_embd
        if not self.seen and not puts[0] and not puts[1]:
            if self.live < 1:
                with ledger.call():
                    self._changed(ledger)
            else:
                ledger.passing(self.variants * self._rows_out)
            return
        self._put(ledger, "mlp_in", self.out)
        self._changed(ledger)
        self._put(ledger, "mlp_out", self.out, replaces=not self.seen)
        ledger.take(self.variants * self._rows_out * D)

    def _changed(self, ledger: Ledger) -> None:
        """LayerRun._mlp: the change of its output, left; rows that do not differ are left out."""
        ledger.take(self.out)
        if self.live < 1:
            ledger.passing(self.out // 4)
            ledger.passing(2 * int(self.live * self.out))


def rerun(ledger: Ledger, layers: Sequence[Layer], most: int) -> int:
    """Rerun.run without shared states: `most` variants are carried, of which those that differ go
    through each layer; what is left are differences at END."""
    config, cells = layers[0].config, layers[0].cells
    delta = ledger.take(most * cells.rows * config.n_embd)
    for layer in layers:
        out = layer.run(ledger)
        if not layer.at_end:
            ledger.give(out)
            continue
        ends = most * cells.prompts * config.n_embd
        if layer.variants < most:
            ledger.passing(2 * ends - out)
        ledger.take(ends - out)
    ledger.give(delta)
    return most * cells.prompts * config.n_embd


def shared_step(ledger: Ledger, layer: Layer, before: int, states: int) -> None:
    """One layer of Rerun.run with shared states: those before it, those that go through it."""
    D, rows = layer.config.n_embd, layer.cells.rows
    with ledger.call():
        old = ledger.take(before * rows * D)
        ledger.take(states * rows * D)
        ledger.give(old)
        layer.run(ledger)
        if layer.at_end:
            ledger.take(states * layer.cells.prompts * D)
