"""What the clean runs of a block hold at once at most, and what is kept of them, in floats.

Pure Python, no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ioi_fast.model.config import GPT2Config
from ioi_fast.plan.memory.rows import Rows

# Rows of logits in one product where a metric needs the whole vocabulary, and of those that are
# compared with the base at once: their exponentials take several times the room.
VOCABULARY_ROWS = 64
READING_ROWS = 8


@dataclass(slots=True)
class Held:
    """Floats that stay from one phase of a block to the next, and the most of any phase."""

    floats: int = 0
    peak: int = 0

    def phase(self, floats: int) -> None:
        """So many more are there for a time."""
        self.peak = max(self.peak, self.floats + floats)

    def keep(self, floats: int) -> None:
        """So many more stay."""
        self.floats += floats
        self.phase(0)


@dataclass(frozen=True, slots=True)
class Beside:
    """What stands beside a layer of the original run."""

    replaced: int  # how many of its sites are overwritten
    kept: int  # floats of it that are kept in tensors of their own
    passing: int  # floats that are there when they are kept
    for_reruns: bool  # whether its queries, keys and values are kept as well


def layer(
    config: GPT2Config, tokens: Rows, at_end: bool = False, replaced: int = 0
) -> tuple[int, int]:
    """A layer of a clean run: its q, k and v, and the most that it holds beside its residual."""
    D, rows = config.n_embd, tokens.prompts if at_end else tokens.rows
    qkv = (2 * tokens.slots + tokens.prompts if at_end else 3 * tokens.slots) * D
    # z, the residual in the middle, what goes into the MLP's activation, and what comes out.
    done = qkv + rows * (3 * D + config.d_mlp) + replaced * (rows + tokens.rows) * D
    return qkv, max(done, (4 * tokens.rows + 3 * tokens.moved) * D)


def by_itself(config: GPT2Config, tokens: Rows) -> int:
    """A whole clean run: a layer, and the residuals before and after it."""
    return 2 * tokens.rows * config.n_embd + layer(config, tokens)[1]


def as_difference(config: GPT2Config, cells: Rows, at_end: bool, replaced: int = 0) -> int:
    """A layer of the new run as a difference, whose sites are all there until they are read."""
    rows, lent = cells.rows, cells.rows + (not cells.aligned) * cells.slots
    if at_end:
        made = 3 * rows + 2 * cells.moved + 6 * cells.prompts
    else:
        made = max(8 * rows, (cells.moved > 0) * 4 * (rows + cells.slots))
    return (lent + made + 6 * replaced * rows) * config.n_embd


def kept_for_reruns(config: GPT2Config, cells: Rows, at_end: bool) -> int:
    """Rows of a layer at the cells of reruns, beside q, k and v."""
    D, F = config.n_embd, config.d_mlp
    if at_end:
        return cells.rows * D + cells.prompts * (D + F)
    return cells.rows * (2 * D + F) + (not cells.aligned) * cells.slots * D


def walk(
    held: Held, config: GPT2Config, orig: Rows, others: int, beside: Callable[[int], Beside]
) -> None:
    """The original run layer by layer, beside what other runs hold."""
    resid, last = orig.rows * config.n_embd, config.n_layer - 1
    for at in range(config.n_layer):
        own = beside(at)
        qkv, floats = layer(config, orig, at == last, own.replaced)
        floats += resid + others + own.kept
        resid = (orig.prompts if at == last else orig.rows) * config.n_embd
        held.phase(floats + max(own.passing, resid))
        held.keep(own.kept + own.for_reruns * qkv)


def means(held: Held, config: GPT2Config, lasts: Sequence[int], together: int, tables: int) -> None:
    """The runs that means are over, so many prompts at a time; so many tables of them stay."""
    tokens = Rows.up_to(sorted(lasts, reverse=True)[:together])
    table = (max(lasts) + 1) * config.n_embd
    values = (3 if tokens.moved else 2) * tokens.slots * config.n_embd
    held.keep(tables * table)
    held.phase(by_itself(config, tokens) + values)


def read_out(held: Held, config: GPT2Config, vocabulary: int, prompts: int) -> None:
    """The base's logits, or a direction of each prompt; either stays."""
    D, V = config.n_embd, config.vocab_size
    held.phase(prompts * (D + V if vocabulary else 4 * D))
    held.keep(prompts * (V if vocabulary else D))
    held.phase(vocabulary * min(prompts, READING_ROWS) * V)


def change(config: GPT2Config, vocabulary: int, rows: int) -> int:
    """The change of the metric: logits of some rows, and a few of them compared with the base's."""
    some, few = min(rows, VOCABULARY_ROWS), min(rows, READING_ROWS)
    beside = max(some * 2 * config.n_embd, vocabulary * few * config.vocab_size)
    return some * config.vocab_size + beside if vocabulary else 0
