"""What a call takes at its peak, in floats: the tensors that are there together, phase by phase.

Pure Python, no torch. The engine's steps are few and each has a fixed set of tensors as wide as the
model, so that their number a row is counted here once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ioi_fast.config import GPT2Config

FLOAT = 4
# Rows of logits in one product where a metric needs the whole vocabulary, and of those that are
# compared with the base at once: their exponentials take several times the room.
VOCABULARY_ROWS = 64
READING_ROWS = 8
_READING_TENSORS = 8
# Bytes of what is no large tensor: blocks and buffers of kernels and libraries, small tensors.
BESIDE = 4 << 20


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of some prompts up to their last ones."""

    rows: int  # all of them
    slots: int  # of prompts that are all as long as the longest

    @classmethod
    def of(cls, last: Sequence[int]) -> Tokens:
        """From the last token of each prompt."""
        return cls(sum(last) + len(last), len(last) * (max(last) + 1))


def one_run(config: GPT2Config, tokens: Tokens) -> int:
    """A layer of a run: three residuals, z, the MLP's output and its inner input by rows; q, k and
    v by slots."""
    return tokens.rows * (5 * config.n_embd + config.d_mlp) + 3 * tokens.slots * config.n_embd


def means_run(config: GPT2Config, last: Sequence[int], together: int) -> int:
    """A layer of the clean runs that means are taken over, so many prompts at a time on as many
    tokens as the longest has, and a site's values."""
    found, T = 0, max(last, default=0) + 1
    for first in range(0, len(last), together):
        some = last[first : first + together]
        tokens = Tokens(sum(some) + len(some), len(some) * T)
        found = max(found, one_run(config, tokens) + 2 * tokens.slots * config.n_embd)
    return found


def new_beside(config: GPT2Config, tokens: Tokens) -> int:
    """A layer of the new run as a difference whose sites are all seen, two of them by slots where
    prompts have unlike many rows."""
    unlike = tokens.slots > tokens.rows
    return (10 * tokens.rows + (2 * tokens.slots if unlike else 0)) * config.n_embd


def knocked_out(config: GPT2Config, rows: int) -> int:
    """What a knock-out adds to a layer of orig: its values and what they replace."""
    return 4 * rows * config.n_embd


def knocked_in_new(config: GPT2Config, tokens: Tokens, aligned: bool) -> int:
    """The same of new; where that is a difference, how far both differ there, by slots too where
    prompts have unlike many rows."""
    if not aligned:
        return 2 * tokens.rows * config.n_embd
    unlike = tokens.slots > tokens.rows
    return (4 * tokens.rows + (tokens.slots if unlike else 0)) * config.n_embd


def heads_of_circuit(config: GPT2Config, heads: Sequence[int]) -> int:
    """The weights of a circuit's heads by layer, which are packed for the call; where a layer has
    all of its heads the model's are taken."""
    packed = sum(count for count in heads if count < config.n_head)
    return 4 * packed * config.n_embd * config.d_head


def for_waves(config: GPT2Config, layers: int, cells: int, new_layers: int) -> int:
    """What waves read of the first layers of both runs: residuals and the MLP's inner input, and
    what new changes in those that it runs through."""
    D = config.n_embd
    return cells * (layers * (2 * D + config.d_mlp) + min(layers, new_layers) * 2 * D)


@dataclass(frozen=True, slots=True)
class Cells:
    """The tokens of some prompts at which a rerun can differ."""

    rows: int  # all of them
    prompts: int
    widest: int  # of one prompt
    aligned: bool  # whether they follow one another from the same token on in all prompts

    @classmethod
    def of(cls, cells: Sequence[Sequence[int]]) -> Cells:
        """From the tokens of each prompt, ascending."""
        first = cells[0][0]
        aligned = all(own[0] == first and own[-1] == first + len(own) - 1 for own in cells)
        return cls(sum(map(len, cells)), len(cells), max(map(len, cells)), aligned)

    @property
    def slots(self) -> int:
        """Of prompts that are all as wide as the widest."""
        return self.prompts * self.widest


def reruns(config: GPT2Config, cells: Cells, begun: int, variants: int, at_end: bool) -> int:
    """A layer of reruns of some variants, of which those that have begun differ before it.

    δ before it and of what is overwritten there, LayerNorm's, q, k and v, or what goes in and out
    of the MLP; where some begin there δ and z of all. Where prompts have unlike many rows, q, k and
    v by slots too. At END alone little is there beside keys and values.
    """
    rows, unlike = cells.rows, cells.slots > cells.rows
    if at_end:
        return (variants + 3 * begun) * rows * config.n_embd
    if begun == variants:
        each = max(6 * rows, 5 * rows + 3 * cells.slots if unlike else 0)
        return variants * each * config.n_embd
    own = 3 * rows + 3 * cells.slots if unlike else 4 * rows
    return max(4 * variants * rows, 2 * variants * rows + begun * own) * config.n_embd


def for_reruns(config: GPT2Config, layers: int, first: int, tokens: int, cells: Cells) -> int:
    """What reruns from a layer on read of the first layers of the original run: q, k and v of all
    tokens, residuals and the MLP's inner input of the rows that can differ; at the end END's."""
    D, F, last = config.n_embd, config.d_mlp, config.n_layer - 1
    whole = cells.rows * (2 * D + F) + 3 * tokens * D
    whole += 0 if cells.aligned else cells.slots * D  # queries by slots
    at_end = cells.rows * D + 2 * tokens * D + cells.prompts * (2 * D + F)
    return max(0, min(layers, last) - first) * whole + (at_end if layers > last else 0)


def runs_beside(kept: Callable[[int], int], new_layers: int, both: int, one: int, L: int) -> int:
    """The largest layer of the runs beside what is kept of the layers up to it: the last one that
    both go through, or the last that orig goes through on all tokens."""
    return max(kept(new_layers) + both, kept(L - 1) + one)


def runs_of_layers(kept: Callable[[int], int], of_orig: int, of_new: int, L: int) -> int:
    """The largest layer where new runs through all layers: the last with all tokens of orig, beside
    what is kept of those before it, or new's last."""
    return max(kept(max(0, L - 2)) + of_orig + of_new, kept(L - 1) + max(of_new, of_orig // 3))


def base_logits(config: GPT2Config, vocabulary: bool, prompts: int) -> int:
    """Logits of the base at END, kept where a metric needs the whole vocabulary."""
    return config.vocab_size * prompts if vocabulary else 0


def reading(config: GPT2Config, vocabulary: bool, rows: int) -> int:
    """Logits of some rows, and what comparing a few of those with the base's takes."""
    if not vocabulary:
        return 0
    rows = min(rows, VOCABULARY_ROWS)
    return config.vocab_size * (rows + _READING_TENSORS * min(rows, READING_ROWS))


def in_bytes(*phases: int) -> int:
    """The peak of a block: its largest phase, with what is kept beside it.

    With the C++ kernels that is what the process grows by (kernels/cpu/workspace_ops.cpp). Without
    them the C library keeps freed pieces that fit nothing that follows: up to twice as much.
    """
    return FLOAT * max(phases) + BESIDE
