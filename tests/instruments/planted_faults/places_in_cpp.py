"""Where a fault can be planted in a C++ file, line by line."""

from __future__ import annotations

import re
from collections.abc import Iterator

from planted_faults.places import Place

# A function begins at the margin, and its name stands before the first parenthesis.
_FUNCTION = re.compile(r"^[A-Za-z][^;=#]*?\b(\w+)\(")
_NO_CODE = re.compile(r"^\s*(//|#|template|using|static_assert|TORCH_|namespace|\*)")
_DECLARATION = re.compile(r"^\s*(const|auto|float|int|int64_t|std::|at::|Vec|return|bool|using)\b")
_SWAPS = (
    ("sign", re.compile(r" (\+=?|-=?) "), {"+": "-", "-": "+", "+=": "-=", "-=": "+="}),
    ("mask", re.compile(r" (&&|\|\|) "), {"&&": "||", "||": "&&"}),
    ("comparison", re.compile(r" (<|<=|>|>=|==|!=) "), {
        "<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "==",
    }),
)  # fmt: skip
_INDEX = re.compile(r"\[(?:[^\]\[]*[^\w\]\[])?(\d+)\]")


def places_in_cpp(text: str) -> list[Place]:
    """Every place inside of a function; offsets are of bytes."""
    found, function, at = [], "", 0
    for line in text.splitlines(keepends=True):
        named = _FUNCTION.match(line)
        if named:
            function = named[1]
        elif function and not _NO_CODE.match(line) and line.strip():
            code = line.split("//")[0].rstrip()
            found += [
                Place(function, kind, at + start, at + stop, after)
                for kind, start, stop, after in _in_line(code)
            ]
        at += len(line.encode())
    return found


def _in_line(code: str) -> Iterator[tuple[str, int, int, str]]:
    for kind, pattern, swap in _SWAPS:
        for match in pattern.finditer(code):
            yield kind, *match.span(1), swap[match[1]]
    for match in _INDEX.finditer(code):
        yield "index", *match.span(1), str(int(match[1]) + 1)
    statement = code.strip()
    if (
        statement.endswith(";")
        and not _DECLARATION.match(code)
        and statement.count("(") == (statement.count(")"))
    ):
        start = len(code) - len(code.lstrip())
        if statement[0].isalpha():
            yield "dropped line", start, len(code), ";"
