"""The records of a prompt file as texts, checked in form, and what to do with files of other forms.

Invariant: a record has one answer and one wrong answer; nothing is skipped.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ioi_fast.asked.pairs_arguments import NO_ROLES
from ioi_fast.asked.prompts import END
from ioi_fast.outside.json_files import read_json_object

FORM = (
    '{"prompts": [{"clean": text, "corrupt": text, "answers": [text], "wrong_answers": [text]}, …]}'
)
ANSWERS = ("answers", "wrong_answers")
LONGEST = 64  # characters of a text or a name in messages
# Roles with a meaning, and END as files write it.
_KNOWN = ("IO", "S1", "S1+1", "S2", "end", END)
_PEEK = 1 << 16  # bytes in which a file shows what it is


@dataclass(frozen=True, slots=True)
class Record:
    """One record as text; `where` names it in messages."""

    where: str
    clean: str
    corrupt: str
    answers: str
    wrong_answers: str


@dataclass(frozen=True, slots=True)
class PromptFile:
    """What a file says: its records, and positions by role where it gives them."""

    records: list[Record]
    word_indices: dict[str, int] | None = None


def shown(value: object) -> str:
    """A value as messages show it, however long it is."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = LONGEST
    return short.repr(value)


def read_json(path: Path) -> PromptFile:
    """The records and word_idxs of a JSON file; ValueError names file, record and reason."""
    try:
        content = read_json_object(path)
        prompts = content.get("prompts")
        if not isinstance(prompts, list) or not prompts:
            raise ValueError(f'{path} must hold a list "prompts" of at least one record')
        records = [_record(f"{path}: prompts[{i}]", entry) for i, entry in enumerate(prompts)]
        return PromptFile(records, _word_indices(path, content.get("word_idxs")))
    except ValueError as error:
        raise ValueError(f"{error}. {_what_to_do(path)}") from error


def checked_texts(where: str, entry: Mapping[str, object], keys: Iterable[str]) -> list[str]:
    """The texts of some fields; ValueError names one that is none, or ends where no answer fits."""
    texts = []
    for key in keys:
        text = entry.get(key)
        if not isinstance(text, str) or not text:
            ids = " (make PromptPairs of token ids)" if isinstance(text, list) else ""
            raise ValueError(f'{where}: "{key}" must be a text, got {shown(text)}{ids}')
        texts.append(text)
    return texts


def ends_in_a_space(text: str) -> bool:
    """Whether a text ends in a plain space; an indent that follows a line break is none."""
    blank = text[len(text.rstrip()) :]
    return blank.endswith(" ") and len(f"{blank}.".splitlines()) == 1


def _what_to_do(path: Path) -> str:
    """How a file of another form becomes one that is read."""
    with path.open("rb") as file:
        start = file.read(_PEEK)
    if start.startswith(b"PAR1"):
        return f"A Parquet file is not read: write its rows as JSON, {FORM}"
    if b'counterfactual"' in start and b'"prompt"' in start:
        return (
            "Its rows have several counterfactual prompts (as MIB's do), one has to be chosen: "
            f'write {FORM}, with "prompt" as clean, the chosen counterfactual\'s "prompt" as '
            "corrupt, the choice that answerKey points at as answers and another choice as "
            "wrong_answers, each with the space that it begins with"
        )
    return f"load_prompts reads {FORM}, or a CSV file whose name ends in .csv"


def _record(where: str, entry: object) -> Record:
    if not isinstance(entry, dict):
        raise ValueError(f"{where} must be an object, got {type(entry).__name__}")
    clean, corrupt = checked_texts(where, entry, ("clean", "corrupt"))
    return Record(where, clean, corrupt, *(_answer(where, key, entry.get(key)) for key in ANSWERS))


def _answer(where: str, key: str, given: object) -> str:
    if isinstance(given, list) and len(given) == 1 and isinstance(given[0], str):
        return given[0]
    came = shown(given)
    if isinstance(given, list) and len(given) > 1:
        came = (
            f"{len(given)}: keep one, or make PromptPairs and compare the sets by a metric of your "
            "own, a callable (docs/other_tasks.md has one)"
        )
    raise ValueError(f'{where}: "{key}" must be a list of exactly one text, got {came}')


def _word_indices(path: Path, given: object) -> dict[str, int] | None:
    """word_idxs with `end` renamed to END, None where the file has none."""
    if given is None:
        return None
    if not isinstance(given, dict):
        raise ValueError(
            f'{path}: "word_idxs" must be an object {{role: token index}}, got {shown(given)}'
        )
    if END in given:
        raise ValueError(f'{path}: word_idxs must name END "end" alone, got "END" too')
    for role, index in given.items():
        where = f'{path}: word_idxs["{shown(role)[1:-1]}"]'
        if role in NO_ROLES:
            raise ValueError(f"{where} can't be a role, the name has a meaning of its own")
        if role.upper() in _KNOWN and role not in _KNOWN:
            meant = "end" if role.upper() == END else role.upper()
            raise ValueError(f'{where} must be written "{meant}", or have another name')
        if not isinstance(index, int) or isinstance(index, bool) or index < 0:
            raise ValueError(f"{where} must be a token index, got {shown(index)}")
    for role, index in given.items():
        if index > given.get("end", index):
            raise ValueError(
                f'{path}: word_idxs["{shown(role)[1:-1]}"] must not lie behind end '
                f"({shown(given['end'])}), got {shown(index)}"
            )
    _check_order(path, given)
    return {END if role == "end" else role: index for role, index in given.items()}


def _check_order(path: Path, given: dict[str, int]) -> None:
    """The first and the second of one name, and the token behind the first."""
    first, behind, second = (given.get(role) for role in ("S1", "S1+1", "S2"))
    if None not in (first, second) and first >= second:
        raise ValueError(
            f'{path}: word_idxs["S2"] must lie behind S1 ({shown(first)}), got {shown(second)}'
        )
    if None not in (first, behind) and behind != first + 1:
        raise ValueError(
            f'{path}: word_idxs["S1+1"] must be one behind S1 ({shown(first)}), got {shown(behind)}'
        )
