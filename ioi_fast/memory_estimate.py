"""What a call takes at its peak, in floats: the tensors that are there together, phase by phase.

Pure Python, no torch. The engine's steps are few and each has a fixed set of tensors as wide as the
model, so that their number a row is counted here once.
"""

from __future__ import annotations

from ioi_fast.config import GPT2Config

FLOAT = 4
# Rows of logits in one product where a metric needs the whole vocabulary, and of those that are
# compared with the base at once: their exponentials take several times the room.
VOCABULARY_ROWS = 64
READING_ROWS = 8
_READING_TENSORS = 8
# Bytes of what is no large tensor: blocks and buffers of kernels and libraries, small tensors.
BESIDE = 3 << 20


def one_run(config: GPT2Config, rows: int) -> int:
    """A layer of a run: three residuals, q, k and v, z, the MLP's output, and its inner input."""
    return rows * (8 * config.n_embd + config.d_mlp)


def both_runs(config: GPT2Config, rows: int, new_rows: int, aligned: bool) -> int:
    """A layer of both; where tokens match, the new one is a difference whose sites are all seen."""
    new = 10 * new_rows * config.n_embd if aligned else one_run(config, new_rows)
    return one_run(config, rows) + new


def reruns(config: GPT2Config, tokens: int, rows: int) -> int:
    """A layer of reruns: δ before and after the attention, of q, k and v by rows and by tokens, or
    of what goes in and out of the MLP; and q, k and v of the base."""
    return (7 * rows + 3 * tokens) * config.n_embd


def heads_of_circuit(config: GPT2Config, heads: int) -> int:
    """The weights of a circuit's heads, which are packed for the call."""
    return 4 * heads * config.n_embd * config.d_head


def for_waves(config: GPT2Config, cells: int, new_layers: int) -> int:
    """What waves read of both runs: residuals and the MLP's inner input, and what new changes."""
    D, L = config.n_embd, config.n_layer
    return cells * (L * (2 * D + config.d_mlp) + new_layers * 2 * D)


def for_reruns(config: GPT2Config, first: int, tokens: int, rows: int, prompts: int) -> int:
    """What reruns read of the original run's layers from the first on: q, k and v of all tokens,
    residuals and the MLP's inner input of the rows that can differ; at the end that of END."""
    D, F = config.n_embd, config.d_mlp
    whole = rows * (2 * D + F) + 3 * tokens * D
    last = rows * D + 2 * tokens * D + prompts * (2 * D + F)
    return max(0, config.n_layer - 1 - first) * whole + last


def base_logits(config: GPT2Config, vocabulary: bool, prompts: int) -> int:
    """Logits of the base at END, kept where a metric needs the whole vocabulary."""
    return config.vocab_size * prompts if vocabulary else 0


def reading(config: GPT2Config, vocabulary: bool, rows: int) -> int:
    """Logits of some rows, and what comparing a few of those with the base's takes."""
    if not vocabulary:
        return 0
    rows = min(rows, VOCABULARY_ROWS)
    return config.vocab_size * (rows + _READING_TENSORS * min(rows, READING_ROWS))


def in_bytes(kept: int, runs: int, wave: int = 0, reruns: int = 0) -> int:
    """The peak of a block: what is kept, and the largest phase beside it.

    With the C++ kernels that is what the process grows by (kernels/cpu/workspace_ops.cpp). Without
    them the C library keeps freed pieces that fit nothing that follows: up to twice as much.
    """
    return FLOAT * (kept + max(runs, wave, reruns)) + BESIDE
