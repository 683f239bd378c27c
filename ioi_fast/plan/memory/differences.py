"""What a layer of reruns holds at once at most, in floats.

Pure Python, no torch.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ioi_fast.model.config import GPT2Config
from ioi_fast.plan.memory.rows import Rows


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of so many variants, of which the first have begun before it."""

    config: GPT2Config
    cells: Rows
    orig: Rows  # whose keys and values are read
    variants: int
    begun: int
    heads: int  # that can differ
    at_end: bool
    puts: Counter[str]  # how many values are put in, by site
    all_differ: bool = True  # whether all rows go through the MLP

    @property
    def floats(self) -> int:
        """Beside the differences before it, the most of three steps: mix, write and MLP."""
        puts, D, width = self.puts, self.config.n_embd, self.heads * self.config.d_head
        out = self.variants * (self.cells.prompts if self.at_end else self.cells.rows)
        before = self.variants * self.cells.rows * min(2, puts["resid_pre"]) * D
        picked = (self.heads < self.config.n_head) * D * width  # weights of some heads
        mlp = out * (1 + self.at_end) * D
        if not self.all_differ or puts["mlp_in"] or puts["mlp_out"]:
            # Rows that differ, what the MLP makes of them, and where that goes.
            mlp = out * (4 + min(1, puts["mlp_in"])) * D
        mixed = self.variants if any(puts[site] for site in "qkv") else self.begun
        attention = max(bool(self.begun) * 3 * picked + self._made(mixed), self._mixed(mixed))
        if mixed < self.variants:  # z of the others is what is put there, if anything
            attention = out * width + max(attention, min(2, puts["z"]) * out * width)
        return before + max(attention, out * (width + D) + 2 * picked, mlp)

    def _made(self, mixed: int) -> int:
        """The normalised input, and q, k and v of it, and those of variants that begin here."""
        width, rows = self.heads * self.config.d_head, self.cells.rows
        others = 3 * mixed if self.begun < mixed else 0
        return rows * (self.begun * (self.config.n_embd + 3 * width) + others * width)

    def _mixed(self, mixed: int) -> int:
        """q, k and v by rows and by slots, what is put there, and z; the base's of some heads."""
        rows, moved, width = self.cells.rows, self.cells.moved, self.heads * self.config.d_head
        out, slots = rows, self.cells.slots
        if self.at_end:
            out = slots = self.cells.prompts
        inputs = [self.puts[site] for site in "qkv" if self.puts[site]]
        parts = out + rows * (2 + len(inputs))
        twice = rows * (max(inputs, default=0) > 1)  # before anything is moved or mixed
        parts += max(twice, out, (2 if self.puts["q"] else 3) * moved, 4 * moved - 2 * rows)
        base = slots + 2 * self.orig.slots if self.heads < self.config.n_head else 0
        z = self.puts["z"] * (2 * slots + out)
        where = bool(z) * mixed * slots * self.heads
        return (mixed * parts + base + z) * width + where
