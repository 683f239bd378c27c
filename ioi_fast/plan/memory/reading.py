"""The tensors of the read-out (engine/readout.py, asked/metrics.py).

Pure Python, no torch.
"""

from __future__ import annotations

from ioi_fast.model.config import GPT2Config
from ioi_fast.plan.memory.ledger import Ledger

# Rows of logits in one product where a metric needs the whole vocabulary, and of those that are
# compared with the base at once: their exponentials take several times the room.
VOCABULARY_ROWS = 64
READING_ROWS = 8


def read_out(ledger: Ledger, config: GPT2Config, vocabulary: int, prompts: int) -> int:
    """readout.read_out: what is left are the base's logits, or a direction of each prompt."""
    D, V = config.n_embd, config.vocab_size
    if not vocabulary:
        ledger.passing(4 * prompts * D)
        return ledger.take(prompts * D)
    ledger.passing(prompts * (D + V))
    logits = ledger.take(prompts * V)
    ledger.passing(vocabulary * min(prompts, READING_ROWS) * V)
    return logits


def change(ledger: Ledger, config: GPT2Config, vocabulary: int, rows: int) -> None:
    """The change of the metric: logits of some rows, and a few of them compared with the base's."""
    if vocabulary:
        some = min(rows, VOCABULARY_ROWS)
        few = min(rows, READING_ROWS)
        ledger.passing(some * (2 * config.n_embd + config.vocab_size))
        ledger.passing(config.vocab_size * (some + vocabulary * few))
