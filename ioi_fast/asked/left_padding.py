"""Padding in front of prompts, which a GPT-2 reads as text: found and refused.

Padding behind END is never read. In front it takes the first positions, so that every other token
of its prompt stands at a wrong one and attends to it: another prompt than was meant.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ioi_fast.asked.pairs_arguments import behind_end, rows_of_fields

# The end of text of GPT-2's own vocabulary, with which its prompts are padded.
GPT2_EOS = 50256
# How often leading runs may come about in tokens in random order and still be called padding.
_BY_CHANCE = 5e-3


def check_not_padded_in_front(
    fields: Mapping[str, tuple[Tensor, Tensor]], eos: int | None = GPT2_EOS
) -> None:
    """Raises ValueError naming a prompt that is padded in front of its first token.

    fields are the prompts and their ends by name, {name: ([N, T], [N])}: looked at together, since
    a tokenizer may have padded the new prompts to one length and the original ones to another.

    Padding is one id that leads prompts by runs of unlike length, none at all among them. Of the
    end of text that is enough. Any other id must stand nowhere else up to END, lead two prompts or
    one prompt three times, and do so oftener than chance or the way of these texts would have it:
    texts may begin with the same word, or with one word twice.
    """
    tokens, end = rows_of_fields(fields)
    length_R = _leading_run(tokens, end)
    first_R = tokens[:, 0]
    likely = first_R[(length_R > 1) | (first_R == (-1 if eos is None else eos))]
    for padding in likely.unique().tolist():
        run_R = length_R.where(first_R == padding, 0)
        if int(run_R.min()) == int(run_R.max()):
            continue
        if padding == eos or _is_padding(padding, length_R, tokens, end, len(fields)):
            raise ValueError(_message(list(fields), padding, run_R))


def _message(names: list[str], padding: int, run_R: Tensor) -> str:
    """Which prompt is padded, and which of the same field, else of the other, has less of it."""
    run_FN = run_R.view(len(names), -1)
    field, prompt = divmod(int(run_R.argmax()), run_FN.shape[1])
    other, least = field, int(run_FN[field].argmin())
    if run_FN[field, least] == run_FN[field, prompt]:
        other, least = divmod(int(run_R.argmin()), run_FN.shape[1])
    of = "" if other == field else f" of {names[other]}"
    return (
        f"{names[field]} must not be padded in front: prompt {prompt} begins with "
        f"{int(run_FN[field, prompt])} times the id {padding}, prompt {least}{of} with "
        f"{int(run_FN[other, least]) or 'none'}. Padding stands behind END: pad on the right, and "
        "give every position without the padding"
    )


def _leading_run(tokens: Tensor, end: Tensor) -> Tensor:
    """How many times each prompt has its first id before another comes, [R]; 0 if none does."""
    inside = ~behind_end(tokens, end)
    length_R = ((tokens == tokens[:, :1]) & inside).long().cumprod(1).sum(1)
    return length_R.where(length_R <= end, 0)


def _is_padding(padding: int, length_R: Tensor, tokens: Tensor, end: Tensor, fields: int) -> bool:
    """Whether runs of an id that some prompts begin with are nothing that texts would hold."""
    inside = ~behind_end(tokens, end)
    leads = tokens[:, 0] == padding
    if int(((tokens == padding) & inside).sum()) > int(length_R[leads].sum()):
        return False
    once = _told_once(tokens[:, 0], length_R, fields)
    run_R = length_R.where(leads, 0)[once]
    more_R = run_R - run_R.min()  # than the BOS that every prompt has
    longest, most = int(more_R.max()), int(more_R.sum())
    if longest < 2 or most < 3:
        return False
    others = length_R[once & ~leads]
    # A single other prompt may double its first id by chance.
    doubled = max(int((others > 1).sum()) - 1, 0) / max(len(others), 1)
    if len(run_R) * doubled ** (most - int((more_R > 0).sum())) > _BY_CHANCE:
        return False  # these texts say their first word twice
    ids = tokens[inside].unique()
    # Special tokens stand at either end of a vocabulary.
    candidates = 2 if padding in (int(ids[0]), int(ids[-1])) else len(ids)
    places = int(inside[once].sum()) - len(run_R) * int(run_R.min())
    return candidates * _chance(len(run_R), longest, most, places) < _BY_CHANCE


def _told_once(first_R: Tensor, length_R: Tensor, fields: int) -> Tensor:
    """Rows but one of a pair that begins with one id: a text seen twice, at its longest run."""
    first_FN, length_FN = first_R.view(fields, -1), length_R.view(fields, -1)
    alike_N = (first_FN == first_FN[0]).all(0)
    longest_N = length_FN.argmax(0)
    rows = torch.arange(fields, device=longest_N.device)[:, None] == longest_N
    return (rows | ~alike_N).flatten()


def _chance(rows: int, longest: int, most: int, places: int) -> float:
    """How often an id that stands `most` times leads rows alone, one of them `longest` times."""
    shapes = math.log(rows) + _log_ways(most - longest + rows - 1, rows - 1)
    return math.exp(min(0.0, shapes - _log_ways(places, most)))


def _log_ways(things: int, chosen: int) -> float:
    """Logarithm of the number of ways to choose."""
    return math.lgamma(things + 1) - math.lgamma(chosen + 1) - math.lgamma(things - chosen + 1)
