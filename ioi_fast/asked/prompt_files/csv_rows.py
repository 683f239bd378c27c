"""Prompts from a CSV file of texts and answer ids, as EAP-IG has for names (IOI).

Ids mean something in one vocabulary, which the file does not name. They are taken where they are
words of the prompt itself, and refused elsewhere.
"""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from ioi_fast.asked.prompt_files.records import (
    ANSWERS,
    FORM,
    PromptFile,
    Record,
    checked_texts,
    shown,
)
from ioi_fast.asked.prompt_files.whole_words import whole_words
from ioi_fast.model.tokenizer import TextCodec, plain_ids
from ioi_fast.outside.json_files import read_bytes

_TEXTS = ("clean", "corrupted")
_IDS = ("correct_idx", "incorrect_idx")
_AS_JSON = f"write the answers as texts in JSON, {FORM}"


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
            f"with the ids {_IDS} of names in the prompt. Else {_AS_JSON}; where a row has a label "
            "or sets of answers, make PromptPairs and give a metric of your own, a callable "
            "(docs/other_tasks.md has one)"
        )


def _record(where: str, row: dict, tokenizer: TextCodec) -> Record:
    if None in row or None in row.values():
        raise ValueError(f"{where} must have as many fields as there are columns")
    clean, corrupt = checked_texts(where, row, _TEXTS)
    ids = plain_ids(tokenizer, clean)
    answers = [_text(where, name, row[name], ids, tokenizer) for name in _IDS]
    return Record(where, clean, corrupt, **dict(zip(ANSWERS, answers, strict=True)))


def _text(where: str, column: str, given: str, clean: list[int], tokenizer: TextCodec) -> str:
    """The text of an answer's id, which must be a word of the clean prompt."""
    if not re.fullmatch("[0-9]{1,9}", given):
        raise ValueError(f"{where}: {column} must be a token id, got {shown(given)}")
    try:
        text = tokenizer.decode([int(given)])
    except (ValueError, TypeError, LookupError, OverflowError):  # as tokenizers refuse an id
        text = None
    if not text or plain_ids(tokenizer, text) != [int(given)]:
        text = None
    if text is None or not whole_words(tokenizer, clean, text):
        what = "no text" if text is None else shown(text)
        raise ValueError(
            f"{where}: {column} {given} is {what} here, which is no word of the clean prompt: the "
            f"ids of another vocabulary? Then {_AS_JSON}"
        )
    return text
