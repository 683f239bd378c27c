"""Prompt pairs from a JSON file of clean and corrupt texts, as circuit-finding tools write them.

Invariant: a record is right or the file is refused with that record's index; nothing is skipped.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ioi_fast.prompts import END, PromptPairs
from ioi_fast.tokenizer import (
    TextCodec,
    bos_id,
    check_codec,
    padding_id,
    plain_ids,
    single_token,
)

# Roles whose token must be the answer or the wrong answer of the clean prompt.
_NAMED = {"IO": "answers", "S1": "wrong_answers", "S2": "wrong_answers"}
_ROLE_FIELDS = ("clean_roles", "corrupt_roles")


@dataclass(frozen=True, slots=True)
class _Record:
    """One record as text; `where` names it in messages."""

    where: str
    clean: str
    corrupt: str
    answers: str
    wrong_answers: str


@dataclass(frozen=True, slots=True)
class _TokenRecord:
    """One record as ids, BOS not counted."""

    answer: int
    wrong_answer: int
    clean: list[int]
    corrupt: list[int]
    clean_roles: dict[str, int]
    corrupt_roles: dict[str, int]


def load_prompts(path: str | Path, tokenizer: TextCodec, prepend_bos: bool = False) -> PromptPairs:
    """Read {"prompts": [{"clean", "corrupt", "answers", "wrong_answers"}, ...]}: clean is orig.

    answers and wrong_answers are lists of exactly one single-token text. An optional "word_idxs"
    {role: token index, counted without BOS} holds for every record and its `end` becomes END.
    Without it IO is the first occurrence of the answer, S1 and S2 are the first and last of the
    wrong answer, S1+1 the token behind S1, END the last token.

    A corrupt prompt has other words, so its roles cannot be looked up. It has the positions of its
    clean prompt where both have equally many tokens. Otherwise, if both have equally many words, a
    role moves to the last token of the word with the same number ("X+1" to the token behind X); if
    not, it keeps its distance to the prompt's last token, so that END always meets END.

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
    records, word_indices = _read(Path(path))
    padding = padding_id(tokenizer)
    found = [_tokenized(record, tokenizer, word_indices) for record in records]
    front = [bos_id(tokenizer)] if prepend_bos else []
    clean_roles, corrupt_roles = ([getattr(row, name) for row in found] for name in _ROLE_FIELDS)

    def columns(rows: list[dict[str, int]]) -> dict[str, list[int]]:
        return {role: [row[role] + len(front) for row in rows] for role in rows[0]}

    return PromptPairs(
        _padded([front + row.clean for row in found], padding),
        _padded([front + row.corrupt for row in found], padding),
        answers=[row.answer for row in found],
        wrong_answers=[row.wrong_answer for row in found],
        positions=columns(clean_roles),
        new_positions=None if clean_roles == corrupt_roles else columns(corrupt_roles),
    )


def _tokenized(
    record: _Record, tokenizer: TextCodec, word_indices: dict[str, int] | None
) -> _TokenRecord:
    """One record's ids and roles; ValueError names the record."""
    answer, wrong_answer = (
        single_token(tokenizer, getattr(record, key), f"{record.where}: {key}:")
        for key in ("answers", "wrong_answers")
    )
    if answer == wrong_answer:
        raise ValueError(
            f"{record.where}: answers and wrong_answers must differ, got {record.answers!r} twice"
        )
    clean, corrupt = (plain_ids(tokenizer, text) for text in (record.clean, record.corrupt))
    clean_roles = _clean_roles(record, clean, tokenizer, word_indices)
    corrupt_roles = _corrupt_roles(record, clean, corrupt, tokenizer, clean_roles)
    return _TokenRecord(answer, wrong_answer, clean, corrupt, clean_roles, corrupt_roles)


def _read(path: Path) -> tuple[list[_Record], dict[str, int] | None]:
    """The file's records and its word_idxs, both checked in form."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # JSON and UTF-8 errors alike
        raise ValueError(f"{path} is not a JSON file: {error}") from error
    prompts = content.get("prompts") if isinstance(content, dict) else None
    if not isinstance(prompts, list) or not prompts:
        raise ValueError(f'{path} must hold {{"prompts": [...]}} with at least one record')
    records = [_record(f"{path}: prompts[{i}]", entry) for i, entry in enumerate(prompts)]
    return records, _word_indices(path, content.get("word_idxs"))


def _record(where: str, entry: object) -> _Record:
    if not isinstance(entry, dict):
        raise ValueError(f"{where} must be an object, got {type(entry).__name__}")
    for key in ("clean", "corrupt"):
        if not isinstance(entry.get(key), str) or not entry[key]:
            raise ValueError(f'{where}: "{key}" must be a text, got {entry.get(key)!r}')
    answers = {}
    for key in ("answers", "wrong_answers"):
        given = entry.get(key)
        if not isinstance(given, list) or len(given) != 1 or not isinstance(given[0], str):
            raise ValueError(f'{where}: "{key}" must be a list of exactly one text, got {given!r}')
        answers[key] = given[0]
    return _Record(where, entry["clean"], entry["corrupt"], **answers)


def _word_indices(path: Path, given: object) -> dict[str, int] | None:
    """word_idxs with `end` renamed to END, None where the file has none."""
    if given is None:
        return None
    if not isinstance(given, dict) or "end" not in given:
        raise ValueError(f'{path}: "word_idxs" must be an object that holds "end", got {given!r}')
    if END in given:
        raise ValueError(f'{path}: word_idxs must name END "end" alone, got "END" too')
    for role, index in given.items():
        if not isinstance(index, int) or isinstance(index, bool) or index < 0:
            raise ValueError(f'{path}: word_idxs["{role}"] must be a token index, got {index!r}')
    for role, index in given.items():
        if index > given["end"]:
            raise ValueError(
                f'{path}: word_idxs["{role}"] must not lie behind end ({given["end"]}), got {index}'
            )
    return {END if role == "end" else role: index for role, index in given.items()}


def _clean_roles(
    record: _Record, ids: list[int], tokenizer: TextCodec, given: dict[str, int] | None
) -> dict[str, int]:
    """Role -> token position in the clean prompt, BOS not counted."""
    places = {key: _occurrences(tokenizer, ids, getattr(record, key)) for key in _NAMED.values()}
    if given is not None:
        if given[END] >= len(ids):
            raise ValueError(
                f'{record.where}: "clean" has {len(ids)} tokens, word_idxs end is {given[END]}'
            )
        for role, key in _NAMED.items():
            if role in given and given[role] not in places[key]:
                raise ValueError(
                    f"{record.where}: word_idxs {role} is {given[role]}, where the clean prompt has"
                    f" {tokenizer.decode([ids[given[role]]])!r}, not {getattr(record, key)!r}"
                )
        return given
    io, s = places["answers"], places["wrong_answers"]
    if not io or len(s) < 2:
        raise ValueError(
            f"{record.where}: the clean prompt must hold the answer {record.answers!r} as a token "
            f"and the wrong answer {record.wrong_answers!r} twice, got {len(io)} and {len(s)} "
            '(or give "word_idxs")'
        )
    return {"IO": io[0], "S1": s[0], "S1+1": s[0] + 1, "S2": s[-1], END: len(ids) - 1}


def _occurrences(tokenizer: TextCodec, ids: list[int], word: str) -> list[int]:
    """Positions of a word as one token, with or without its leading space."""
    forms = (plain_ids(tokenizer, form) for form in (word, word.strip(), f" {word.strip()}"))
    wanted = {form[0] for form in forms if len(form) == 1}
    return [at for at, token in enumerate(ids) if token in wanted]


def _corrupt_roles(
    record: _Record,
    clean: list[int],
    corrupt: list[int],
    tokenizer: TextCodec,
    roles: dict[str, int],
) -> dict[str, int]:
    """Role -> token position in the corrupt prompt; see `load_prompts` for the rule."""
    if len(clean) == len(corrupt):
        return roles
    old, new = (_words(tokenizer, text) for text in (record.clean, record.corrupt))
    if old is not None and new is not None and len(old) == len(new):
        return {role: _same_word(role, roles, old, new) for role in roles}
    moved = {role: at + len(corrupt) - len(clean) for role, at in roles.items()}
    for role, at in moved.items():
        if at < 0:
            raise ValueError(
                f'{record.where}: "corrupt" has {len(corrupt)} tokens and "clean" {len(clean)}, so '
                f"{role} has no counterpart {len(clean) - 1 - roles[role]} tokens before the last"
            )
    return moved


def _words(tokenizer: TextCodec, text: str) -> list[int] | None:
    """Last token position of each word; None if the tokenizer does not cut at spaces."""
    first, *others = text.split(" ")
    pieces = [plain_ids(tokenizer, word) for word in (first, *(f" {word}" for word in others))]
    if [token for piece in pieces for token in piece] != plain_ids(tokenizer, text):
        return None
    lasts, total = [], 0
    for piece in pieces:
        total += len(piece)
        lasts.append(total - 1)
    return lasts


def _same_word(role: str, roles: dict[str, int], old: list[int], new: list[int]) -> int:
    """Where a role's token goes, counted from the last token of its word."""
    base, _, step = role.rpartition("+")
    if step == "1" and roles.get(base) == roles[role] - 1:
        return _same_word(base, roles, old, new) + 1
    word = next(i for i, last in enumerate(old) if last >= roles[role])
    start = new[word - 1] + 1 if word else 0
    return max(start, new[word] - (old[word] - roles[role]))


def _padded(rows: list[list[int]], padding: int) -> list[list[int]]:
    width = max(map(len, rows))
    return [row + [padding] * (width - len(row)) for row in rows]
