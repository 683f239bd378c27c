"""Prompt pairs from a file of clean and corrupt texts, as circuit-finding tools write them.

Invariant: a record is right or the file is refused with that record's index; nothing is skipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ioi_fast.asked.prompt_files.clean_roles import CleanPrompt, clean_roles
from ioi_fast.asked.prompt_files.corrupt_roles import corrupt_roles
from ioi_fast.asked.prompt_files.csv_rows import read_csv
from ioi_fast.asked.prompt_files.json_records import (
    ANSWERS,
    LONGEST,
    Record,
    ends_in_a_space,
    read_json,
    shown,
)
from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.tokenizer import (
    TextCodec,
    bos_if_any,
    check_codec,
    in_front,
    padding_id,
    plain_ids,
    single_token,
)

Roles = dict[str, int]


@dataclass(frozen=True, slots=True)
class _Tokens:
    """One record as ids, those of the prompts without the BOS that they begin with."""

    clean: CleanPrompt
    corrupt: list[int]
    front: list[int]


def load_prompts(path: str | Path, tokenizer: TextCodec, prepend_bos: bool = False) -> PromptPairs:
    """Read {"prompts": [{"clean", "corrupt", "answers", "wrong_answers"}, ...]}: clean is orig.

    answers and wrong_answers are lists of exactly one single-token text. An optional "word_idxs"
    {role: token index} holds for every record. Its indices are counted without BOS, also where a
    text has it written out. Its `end` becomes END, and needs prompts of one length; without `end`
    END is each prompt's last token.

    Without word_idxs the names tell the roles, found as whole words: IO is the first occurrence of
    the answer, S1 and S2 are the first and last of the wrong answer, S1+1 the token behind S1, END
    the last token. If no record's text holds an answer (or one in eight at most does, a single
    time), END is the only role; else the records that lack one of the three names are refused. An
    answer must have the form that it has in the text: "Mary" is refused where " Mary" stands (the
    other way round it is a name without its space, as at the start of a sentence). A text must not
    end in a space that an answer begins with.

    A corrupt prompt has other words, so its roles cannot be looked up. If both prompts have equally
    many words, a role moves to the word with the same number, a name to its last token ("X+1" to
    the token behind X). If not, it keeps its distance to the prompt's last token, so that END
    always meets END, and a record is refused where that would be within a word.

    A file named *.csv has the columns clean, corrupted, correct_idx and incorrect_idx (EAP-IG's of
    IOI): token ids of two names in the clean prompt.

    Raises OSError if the file cannot be opened, ValueError naming file, record index and reason,
    TypeError for a path that is none and a tokenizer without encode and decode.

    Example:
        >>> load_prompts("prompts.json", ioi_fast.load("demo").tokenizer)
        PromptPairs(N=2, T=15, roles=IO, S1, S1+1, S2, END)
    """
    check_codec(tokenizer)
    if not isinstance(prepend_bos, bool):
        raise TypeError(f"prepend_bos must be a bool, got {prepend_bos!r}")
    if not isinstance(path, (str, Path)):
        raise TypeError(f"path must be a str or a Path, got {path!r}")
    path = Path(path)
    bos = bos_if_any(tokenizer, prepend_bos)
    file = read_csv(path, tokenizer) if path.suffix.lower() == ".csv" else read_json(path)
    rows = [_tokens(record, tokenizer, bos, prepend_bos) for record in file.records]
    clean = clean_roles([row.clean for row in rows], file.word_indices)
    corrupt = [
        corrupt_roles(row.clean.record, row.clean.ids, row.corrupt, tokenizer, roles)
        for row, roles in zip(rows, clean, strict=True)
    ]
    try:
        return _pairs(rows, clean, corrupt, padding_id(tokenizer))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _tokens(record: Record, tokenizer: TextCodec, bos: int | None, prepend_bos: bool) -> _Tokens:
    """One record's ids; ValueError names the record."""
    texts = [getattr(record, key) for key in ANSWERS]
    answers = [_one_token(record, key, tokenizer) for key in ANSWERS]
    if answers[0] == answers[1]:
        raise ValueError(
            f"{record.where}: answers and wrong_answers must differ, got {texts[0]!r} twice"
        )
    prompts, written = [], []
    for key in ("clean", "corrupt"):
        text = getattr(record, key)
        if ends_in_a_space(text) and any(answer.startswith(" ") for answer in texts):
            raise ValueError(
                f'{record.where}: "{key}" must not end in a space, which the answers {texts} '
                "begin with: take it from the text"
            )
        ids = plain_ids(tokenizer, text)
        written.append(bos is not None and ids[:1] == [bos])
        prompts.append(ids[written[-1] :])
        if not prompts[-1]:
            raise ValueError(f'{record.where}: "{key}" must have at least one token besides BOS')
    if written[0] != written[1] and not prepend_bos:
        raise ValueError(f"{record.where}: one of clean and corrupt begins with BOS, not the other")
    front = in_front(bos, prepend_bos, written[0])
    return _Tokens(CleanPrompt(record, prompts[0], answers, tokenizer), prompts[1], front)


def _one_token(record: Record, key: str, tokenizer: TextCodec) -> int:
    """Id of an answer; ValueError names the record unless it is a single token."""
    text, what = getattr(record, key), f"{record.where}: {key}:"
    if len(text) > LONGEST and (count := len(plain_ids(tokenizer, text))) != 1:
        raise ValueError(f"{what} {shown(text)} must be a single token, got {count}")
    return single_token(tokenizer, text, what)


def _pairs(
    rows: list[_Tokens], clean: list[Roles], corrupt: list[Roles], padding: int
) -> PromptPairs:
    fronts = [row.front for row in rows]
    positions, new_positions = (_columns(roles, fronts) for roles in (clean, corrupt))
    return PromptPairs(
        _padded([row.front + row.clean.ids for row in rows], padding),
        _padded([row.front + row.corrupt for row in rows], padding),
        answers=[row.clean.answers["answers"] for row in rows],
        wrong_answers=[row.clean.answers["wrong_answers"] for row in rows],
        positions=positions,
        new_positions=None if clean == corrupt else new_positions,
    )


def _columns(rows: list[Roles], fronts: list[list[int]]) -> dict[str, list[int]]:
    """Role -> positions of all prompts, BOS counted."""
    return {
        role: [row[role] + len(front) for row, front in zip(rows, fronts, strict=True)]
        for role in rows[0]
    }


def _padded(rows: list[list[int]], padding: int) -> list[list[int]]:
    """Rows, which stop at their END, all as long as the longest."""
    width = max(map(len, rows))
    return [row + [padding] * (width - len(row)) for row in rows]
