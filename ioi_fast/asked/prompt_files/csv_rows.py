"""Prompts from a CSV file of texts and answer ids, as EAP-IG has for names (IOI).

Ids mean something in one vocabulary, which the file does not name. They are taken where they are
words of the prompt itself, and refused elsewhere.
"""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from ioi_fast.asked.prompt_files.json_records import (
    ANSWERS,
    FORM,
    PromptFile,
    Record,
    checked_texts,
    shown,
)
from ioi_fast.asked.prompt_files.whole_words import whole_words
from ioi_fast.outside.json_files import read_bytes
from ioi_fast.tokenizer import TextCodec, plain_ids

_TEXTS = ("clean", "corrupted")
_IDS = ("correct_idx", "incorrect_idx")
_AS_JSON = f"write the answers as texts in JSON, {FORM}"
_BY_METRIC = (
    "Where a row has a label or sets of answers, keep one answer and one wrong answer, or make "
    "PromptPairs and give a metric of your own, a callable (docs/other_tasks.md has one)"
)


def read_csv(path: Path, tokenizer: TextCodec) -> PromptFile:
    """The rows of a CSV file; ValueError names the file, the row (from 0) and the reason."""
    try:
        text = read_bytes(path, "CSV").decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        _check_columns(path, list(reader.fieldnames or ()))
        # One row at a time: a million empty ones end at the first.
        records = [_record(f"{path}: row {i}", row, tokenizer) for i, row in enumerate(reader)]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error}") from error
    except csv.Error as error:
        raise ValueError(f"{path} is not a CSV file: {error}") from error
    if not records:
        raise ValueError(f"{path} must hold at least one row, got the names of columns alone")
    return PromptFile(records)


def _check_columns(path: Path, columns: list[str]) -> None:
    lacking = [name for name in (*_TEXTS, *_IDS) if columns.count(name) != 1]
    if lacking:
        raise ValueError(
            f"{path} must have one column {lacking[0]}, got {shown(columns)}. Read are {_TEXTS} "
            f"with the ids {_IDS} of names in the prompt. Else {_AS_JSON}. {_BY_METRIC}"
        )


def _record(where: str, row: dict, tokenizer: TextCodec) -> Record:
    if None in row or None in row.values():
        raise ValueError(f"{where} must have as many fields as there are columns")
    clean, corrupt = checked_texts(where, row, _TEXTS)
    ids = plain_ids(tokenizer, clean)
    answers = [_text(f"{where}: {name}", row[name], tokenizer) for name in _IDS]
    for name, text in zip(_IDS, answers, strict=True):
        if text is None or not whole_words(tokenizer, ids, text, clean):
            what = "no text" if text is None else shown(text)
            raise ValueError(
                f"{where}: {name} {row[name]} is {what} here, which is no word of the clean "
                f"prompt: the ids of another vocabulary? Then {_AS_JSON}"
            )
    return Record(where, clean, corrupt, **dict(zip(ANSWERS, answers, strict=True)))


def _text(what: str, given: str, tokenizer: TextCodec) -> str | None:
    """The text of an answer's id, None where it has none."""
    if not re.fullmatch("[0-9]{1,9}", given):
        sets = f". {_BY_METRIC}" if re.search("[0-9][^0-9.]+[0-9]", given) else ""
        raise ValueError(f"{what} must be a token id, got {shown(given)}{sets}")
    try:
        text = tokenizer.decode([int(given)])
    except (ValueError, TypeError, LookupError, OverflowError):  # as tokenizers refuse an id
        return None
    return text if text and plain_ids(tokenizer, text) == [int(given)] else None
