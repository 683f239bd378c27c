"""Prompts as tokens: `ioi_prompts`, the paired p_ABC prompts, and the builder that all derived sets
share.

Records (words) come in, PromptPairs (ids and roles) go out. The answers are always those of the
original prompt.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence

import numpy
import torch
from torch import Tensor

from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.ioi.records import IOIPrompt, sample_records
from ioi_fast.ioi.words import NAMES, check_words
from ioi_fast.outside.whole_numbers import whole_number
from ioi_fast.own_settings import own_settings
from ioi_fast.plan.available_memory import check_available
from ioi_fast.tokenizer import (
    TextCodec,
    bos_if_any,
    check_codec,
    in_front,
    padding_id,
    plain_ids,
    single_token,
)

# What drawing a prompt takes at its peak: words, then ids of both prompts and roles.
_BYTES_OF_A_PROMPT = 2048
ROLES = ("IO", "S1", "S1+1", "S2", "END")


def ioi_prompts(
    tokenizer: TextCodec,
    n: int = 100,
    seed: int = 0,
    forms: str | Sequence[int] = "mixed14",
    prepend_bos: bool = False,
    abc: str = "distinct",
) -> PromptPairs:
    """n Indirect Object Identification prompts, each paired with its p_ABC prompt.

    Roles IO, S1, S1+1, S2, END; `forms` of the result: BABA i is i, ABBA i is 15 + i. "mixed14" are
    the templates 0-6 in both orders, "all30" all. p_ABC keeps template, nouns and positions:
    abc="distinct" puts three distinct names outside the prompt's own, abc="authors" chains the
    three flips of the released code. The originals depend on n, seed and forms alone. `prepend_bos`
    puts the tokenizer's BOS in front and shifts every role.

    Raises TypeError or ValueError naming the argument, as for an n that memory can't hold; a name,
    place or object that is not one token is named with its pieces. Source: Wang et al. 2022 (arXiv
    2211.00593), section 2.

    Example:
        >>> ioi_prompts(ioi_fast.load("demo").tokenizer, n=2, seed=1)
        PromptPairs(N=2, T=15, roles=IO, S1, S1+1, S2, END)
    """
    # Numpy's integers become Python's; what is none goes on as it came and is refused by name.
    n, seed = (x if (whole := whole_number(x)) is None else whole for x in (n, seed))
    if type(n) is int:
        check_drawn(n, "n")
    records = sample_records(n, seed, _form_ids(forms))
    return pair_records(tokenizer, records, abc_records(records, seed, abc), prepend_bos)


def check_drawn(n: int, argument: str, more: int = 0) -> None:
    """Raises ValueError naming the argument where memory can't hold so many prompts.

    `more` are bytes of each for its results.
    """
    said = str(n) if n < 10**18 else "more than 10**18"
    what = "prompts and their results" if more else "prompts"
    check_available(n * (_BYTES_OF_A_PROMPT + more), f"{argument}: {said} {what}")


def _form_ids(forms: object) -> str | tuple[int, ...]:
    """The name of a set, or ids as Python's integers; TypeError for what is neither."""
    if isinstance(forms, str):
        return forms
    listed = forms.tolist() if isinstance(forms, (Tensor, numpy.ndarray)) else forms
    # A set has no order and a dict would lose its values.
    refused = isinstance(listed, (bytes, set, frozenset, Mapping))
    if not refused and isinstance(listed, Iterable):
        ids = tuple(whole_number(form) for form in listed)
        if None not in ids:
            return ids
    raise TypeError(f'forms must be "mixed14", "all30" or a list of form ids, got {forms!r}')


def abc_records(records: Sequence[IOIPrompt], seed: int, abc: str = "distinct") -> list[IOIPrompt]:
    """The p_ABC record of each original record; ValueError unless abc is "distinct" or
    "authors"."""
    draws = {"distinct": _three_others, "authors": _three_flips}
    if not isinstance(abc, str) or abc not in draws:
        raise ValueError(f"abc must be one of {sorted(draws)}, got {abc!r}")
    rng = random.Random(f"{abc} names {seed}")
    return [record.with_names(*draws[abc](rng, record)) for record in records]


def _three_others(rng: random.Random, record: IOIPrompt) -> tuple[str, str, str]:
    """Three distinct names, none of them in the prompt."""
    present = {record.io, record.s1, record.s2}
    a, b, c = rng.sample([name for name in NAMES if name not in present], 3)
    return a, b, c


def _three_flips(rng: random.Random, record: IOIPrompt) -> tuple[str, str, str]:
    """The chained flips: IO to a name outside the prompt, both S to one random name, S1 to another
    draw.

    The last two exclude nothing, so about 3 % of the prompts repeat a name by accident, as in the
    released data.
    """
    io = rng.choice([name for name in NAMES if name not in (record.io, record.s1)])
    s2 = rng.choice(NAMES)
    return io, rng.choice(NAMES), s2


@own_settings()
def pair_records(
    tokenizer: TextCodec,
    orig: Sequence[IOIPrompt],
    new: Sequence[IOIPrompt],
    prepend_bos: bool = False,
) -> PromptPairs:
    """Tokens, roles and answers of paired records; answers are orig's IO and S, whatever new holds.

    new_positions are given where any role of new stands elsewhere than in orig.
    Raises ValueError naming a name, place or object that is not a single token.
    """
    check_codec(tokenizer)
    if not isinstance(prepend_bos, bool):
        raise TypeError(f"prepend_bos must be a bool, got {prepend_bos!r}")
    check_words(tokenizer, {name for r in (*orig, *new) for name in (r.io, r.s1, r.s2)})
    front = in_front(bos_if_any(tokenizer, prepend_bos), prepend_bos)
    orig_ids, positions = _batch(tokenizer, orig, front)
    new_ids, new_positions = _batch(tokenizer, new, front)
    moved = any(not torch.equal(positions[role], new_positions[role]) for role in ROLES)
    return PromptPairs(
        orig_ids,
        new_ids,
        answers=[single_token(tokenizer, f" {r.io}", "IO") for r in orig],
        wrong_answers=[single_token(tokenizer, f" {r.s1}", "S") for r in orig],
        positions=positions,
        forms=[r.form for r in orig],
        new_positions=new_positions if moved else None,
    )


def _batch(
    tokenizer: TextCodec, records: Sequence[IOIPrompt], front: list[int]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Right-padded ids [N, T] and role -> positions [N]."""
    rows, roles = zip(*(tokenize_record(tokenizer, record) for record in records), strict=True)
    width = max(map(len, rows))
    padding = padding_id(tokenizer)
    ids = [front + row + [padding] * (width - len(row)) for row in rows]
    positions = {role: torch.tensor([at[role] for at in roles]) + len(front) for role in ROLES}
    return torch.tensor(ids), positions


def tokenize_record(tokenizer: TextCodec, record: IOIPrompt) -> tuple[list[int], dict[str, int]]:
    """Ids of one prompt up to " to", and its roles.

    Pieces are encoded one by one, which says where each name stands; ValueError if the whole text
    is encoded otherwise.
    """
    ids: list[int] = []
    at: dict[str, int] = {}
    for text, role in record.segments:
        if role is not None:
            at[role] = len(ids)
        ids += plain_ids(tokenizer, text)
    if ids != plain_ids(tokenizer, record.text):
        raise ValueError(f"tokenizer must split at the spaces before names, in {record.text!r}")
    at["S1+1"], at["END"] = at["S1"] + 1, len(ids) - 1
    return ids, at
