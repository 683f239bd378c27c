"""Derived distributions: the six signal data sets, longer openers, and adversarial insertions.

Each returns PromptPairs over the same originals that `ioi_prompts` draws for that n, seed and
forms, so that results can be compared prompt by prompt.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.ioi.dataset import abc_records, pair_records
from ioi_fast.ioi.records import IOIPrompt, insert_sentences, sample_records
from ioi_fast.ioi.templates import INSERTIONS
from ioi_fast.ioi.words import NAMES
from ioi_fast.tokenizer import TextCodec


def signal_prompts(
    tokenizer: TextCodec,
    n: int = 100,
    seed: int = 0,
    *,
    token: int,
    position: int,
    forms: str | Sequence[int] = "mixed14",
    prepend_bos: bool = False,
) -> PromptPairs:
    """Pairs whose new prompt carries a chosen token signal and position signal about S.

    token +1: S2 is the original's S, 0: random names, -1: S2 is the original's IO. position +1: S2
    repeats the name at S1, -1: it repeats the name at IO. With A B B for the names at IO, S1, S2 of
    the original, new is (+1,+1) ABB, (+1,-1) BAB, (0,+1) DCC, (0,-1) CDC, (-1,+1) BAA, (-1,-1) ABA.
    (+1,+1) is the original itself.

    Raises ValueError naming `token` or `position`. Source: Wang et al. 2022, section 3.2.

    Example:
        >>> pairs = signal_prompts(tokenizer, n=50, token=-1, position=1)
    """
    if token not in (1, 0, -1):
        raise ValueError(f"token must be +1, 0 or -1, got {token!r}")
    if position not in (1, -1):
        raise ValueError(f"position must be +1 or -1, got {position!r}")
    records = sample_records(n, seed, forms)
    rng = random.Random(f"signal names {seed}")
    new = [_with_signals(rng, record, token, position) for record in records]
    return pair_records(tokenizer, records, new, prepend_bos)


def _with_signals(rng: random.Random, record: IOIPrompt, token: int, position: int) -> IOIPrompt:
    outside = [name for name in NAMES if name not in (record.io, record.s1)]
    # Drawn for every kind, so that (0, +1) and (0, -1) use the same names.
    drawn = tuple(rng.sample(outside, 2))
    other, repeated = {
        1: (record.io, record.s1),
        0: drawn,
        -1: (record.s1, record.io),
    }[token]
    if position == 1:
        return record.with_names(io=other, s1=repeated, s2=repeated)
    return record.with_names(io=repeated, s1=other, s2=repeated)


def longer_prefix_prompts(
    tokenizer: TextCodec,
    n: int = 100,
    seed: int = 0,
    forms: str | Sequence[int] = "mixed14",
    prepend_bos: bool = False,
) -> PromptPairs:
    """Pairs whose new prompt says the same behind a longer opener: every role moves, no distance
    does.

    The roles of the new prompt are its own (`new_positions`). Source: Wang et al. 2022, section 3.2
    and its appendix.

    Example:
        >>> pairs = longer_prefix_prompts(tokenizer, n=50)
        >>> bool((pairs.new_positions["S2"] > pairs.positions["S2"]).all())
        True
    """
    records = sample_records(n, seed, forms)
    new = [replace(record, long_opener=True) for record in records]
    return pair_records(tokenizer, records, new, prepend_bos)


def adversarial_prompts(
    tokenizer: TextCodec,
    n: int = 100,
    seed: int = 0,
    forms: str | Sequence[int] = "mixed14",
    prepend_bos: bool = False,
    *,
    insert: str = "IO",
    sentences: int = 1,
    abc: str = "distinct",
) -> PromptPairs:
    """Prompts with one or two sentences about IO (or S, the control) between their clauses.

    The sentence stands right behind the punctuation that joins the clauses and moves S2 and END.
    Its form is drawn from five for one sentence and from the 25 ordered pairs for two (the paper
    shows one, its code inserts two). The new prompt is the p_ABC prompt of the changed sentence:
    the inserted name changes with the name that it repeats.

    Raises ValueError naming `insert`, `sentences` or `abc`. Source: Wang et al. 2022, section 4.4.

    Example:
        >>> pairs = adversarial_prompts(tokenizer, n=50, insert="S")
    """
    if insert not in ("IO", "S"):
        raise ValueError(f'insert must be "IO" or "S", got {insert!r}')
    if sentences not in (1, 2):
        raise ValueError(f"sentences must be 1 or 2, got {sentences!r}")
    rng = random.Random(f"inserted sentences {seed}")
    records = []
    for record in sample_records(n, seed, forms):
        name = record.io if insert == "IO" else record.s1
        drawn = [rng.randrange(len(INSERTIONS)) for _ in range(sentences)]
        records.append(insert_sentences(record, name, drawn))
    return pair_records(tokenizer, records, abc_records(records, seed, abc), prepend_bos)
