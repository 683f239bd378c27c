"""JSON as it comes from elsewhere: read strictly, in linear time and bounded memory.

What JSON has in two ways or beyond its rules is refused with the file and the place: a key given
twice, NaN, numbers too long to count with, halves of surrogate pairs, a hundred nested brackets.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ioi_fast.outside.quoting import cut, quoted

# The most memory that JSON text can take once it is read is some 28 times its length.
_MOST_BYTES = 32 * 2**20
_DEEPEST = 100
# Whatever is shorter fits a float.
_MOST_DIGITS = 300

_HALF_OF_A_PAIR = re.compile(r"\\u[dD][89a-fA-F]")
_STRING_OR_BRACKET = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Refused:
    """Stands among the values read for one that can't be taken, until its place is known."""

    reason: str


def read_json_object(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises OSError, or ValueError naming the file and the place when it holds anything else.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(content).__name__}")
    return content


def read_json(path: str | os.PathLike[str]) -> Any:
    """What a JSON file holds; raises OSError, or ValueError naming the file and the place."""
    try:
        text = read_bytes(path, "JSON").decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    return parse_json(text, str(path))


def read_bytes(path: str | os.PathLike[str], form: str) -> bytes:
    """All of a file in a form of text; raises OSError, or ValueError where it is too large."""
    with open(path, "rb") as file:
        raw = file.read(_MOST_BYTES + 1)
    if len(raw) > _MOST_BYTES:
        limit = f"at most {_MOST_BYTES >> 20} MiB are read"
        raise ValueError(f"{path} is too large for {form}: {limit}")
    return raw


def parse_json(text: str, where: str) -> Any:
    """What a JSON text holds; raises ValueError naming where it is from and the place.

    >>> parse_json('{"heads": {"9.9": "END"}}', "circuit.json")
    {'heads': {'9.9': 'END'}}
    """
    strict = _Strict()
    if text.startswith("\ufeff"):
        raise ValueError(f"{where} is not valid JSON: line 1 begins with a byte order mark")
    try:
        content = json.loads(
            text,
            object_pairs_hook=strict.object,
            parse_int=strict.integer,
            parse_float=strict.float,
            parse_constant=strict.constant,
        )
    except RecursionError:
        raise _too_deep(text, where) from None
    except ValueError as error:
        raise ValueError(f"{where} is not valid JSON: {error}") from error
    if _is_too_deep(content):
        raise _too_deep(text, where)
    if strict.refused or _HALF_OF_A_PAIR.search(text):
        _check_every_value(content, where)
    return content


class _Strict:
    """What is made of the pieces of a JSON text."""

    def __init__(self) -> None:
        self.refused = False

    def _refuse(self, reason: str) -> _Refused:
        self.refused = True
        return _Refused(reason)

    def object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any] | _Refused:
        """An object; plain `json` would silently keep the last of two equal keys."""
        content = dict(pairs)
        if len(content) == len(pairs):
            return content
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                break
            seen.add(name)
        return self._refuse(f"{quoted(name)} is given twice")

    def integer(self, digits: str) -> int | _Refused:
        return int(digits) if len(digits) <= _MOST_DIGITS else self._too_long(digits)

    def float(self, digits: str) -> float | _Refused:
        if len(digits) > _MOST_DIGITS:
            return self._too_long(digits)
        number = float(digits)
        return number if math.isfinite(number) else self._refuse(f"{digits} is too large")

    def _too_long(self, digits: str) -> _Refused:
        return self._refuse(f"the number {cut(digits, 30)} has {len(digits)} digits")

    def constant(self, name: str) -> _Refused:
        return self._refuse(f"{name} is no number in JSON")


def _is_too_deep(content: Any) -> bool:
    level = [content] if isinstance(content, (dict, list)) else []
    for _ in range(_DEEPEST):
        level = [value for outer in level for value in _values(outer) if _values(value)]
    return bool(level)


def _values(content: Any) -> Collection[Any]:
    """What a list or an object holds; nothing for anything else."""
    if isinstance(content, dict):
        return content.values()
    return content if isinstance(content, list) else ()


def _too_deep(text: str, where: str) -> ValueError:
    depth = 0
    for found in _STRING_OR_BRACKET.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(found[0], 0)
        if depth > _DEEPEST:
            line = text.count("\n", 0, found.start()) + 1
            column = found.start() - text.rfind("\n", 0, found.start())
            place = f"line {line} column {column}"
            break
    else:
        place = "its middle"
    return ValueError(
        f"{where} is not valid JSON: more than {_DEEPEST} brackets are open at {place}"
    )


def _check_every_value(content: Any, where: str) -> None:
    for place, value in _placed(content):
        if isinstance(value, _Refused):
            raise ValueError(f"{where}: {value.reason}{_at(place)}")
        if isinstance(value, str) and not _is_text(value):
            raise ValueError(f"{where}: {quoted(value)} holds half a surrogate pair{_at(place)}")


def _placed(content: Any) -> Iterator[tuple[tuple, Any]]:
    """Every key and value in the order of the text, with its place: (place of the outer, key)."""
    waiting: list[tuple[tuple, Any]] = [((), content)]
    while waiting:
        place, value = waiting.pop()
        yield place, value
        keys = value.keys() if isinstance(value, dict) else range(len(_values(value)))
        if isinstance(value, dict):
            yield from ((place, key) for key in keys)
        inner = [((place, key), one) for key, one in zip(keys, _values(value), strict=True)]
        waiting += reversed(inner)


def _at(place: tuple) -> str:
    keys = []
    while place:
        place, key = place
        keys.append(f"[{quoted(key)}]")
    return f" in {cut(''.join(reversed(keys)), 200)}" if keys else ""


def _is_text(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
