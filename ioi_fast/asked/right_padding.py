"""Padding behind prompts that is read, since END stands on it: found and refused.

Prompts of several lengths that a tokenizer has padded to one width, and one END for all of them,
the last column: the answer is then read behind an end of text.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ioi_fast.asked.left_padding import GPT2_EOS
from ioi_fast.asked.pairs_arguments import behind_end, rows_of_fields


def check_not_read_at_padding(fields: Mapping[str, tuple[Tensor, Tensor]], eos: int) -> None:
    """Raises ValueError naming a prompt whose END stands on padding of this end of text.

    fields are the prompts and their ends by name, {name: ([N, T], [N])}. Two ends of text in front
    of END are padding. A single one is where it is GPT-2's and other prompts have none; that of a
    small vocabulary may be text. A prompt of nothing else has no padding.
    """
    tokens, end = rows_of_fields(fields)
    run_R = _trailing_run(tokens, end, eos)
    least, most = int(run_R.min()), int(run_R.max())
    if most > 1 or (eos == GPT2_EOS and most > least):
        field, prompt = divmod(int(run_R.argmax()), len(run_R) // len(fields))
        raise ValueError(
            f"{list(fields)[field]} must not be read at padding: up to its END prompt {prompt} has "
            f"{most} times the end of text, id {eos}. END is the last token of each prompt's own "
            "text (where new has other lengths than orig, give new_positions)"
        )


def _trailing_run(tokens: Tensor, end: Tensor, eos: int) -> Tensor:
    """How many times an id stands up to each END without another behind it, [R]; 0 if alone."""
    texts = ((tokens != eos) & ~behind_end(tokens, end)).long()
    last_R = texts.shape[1] - 1 - texts.flip(1).argmax(1)
    return (end - last_R).where(texts.any(1), 0)
