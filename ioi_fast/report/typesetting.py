"""How numbers and tokens are written in a report, on a page and in a terminal alike."""

from __future__ import annotations

import math
import re

MINUS = "\N{MINUS SIGN}"
PLUS_MINUS = "\N{PLUS-MINUS SIGN}"


def decimals_for(limit: float) -> int:
    """Decimals that show four significant digits of the largest value: 3 for 2.5, 4 for 0.25."""
    if limit <= 0:
        raise ValueError(f"limit: expected a positive number, got {limit}")
    return max(0, 3 - math.floor(math.log10(limit)))


def signed(value: float | None, decimals: int) -> str:
    """`+0.120` or `-0.120`; a dash for "not applicable", no sign on a value that rounds to zero."""
    if value is None:
        return "\N{EN DASH}"
    # Eight decimals and more are unreadable as zeros.
    text = f"{value:+.{decimals}f}" if decimals < 8 else f"{value:+.2e}"
    return text[1:] if float(text) == 0 else text


def with_error(value: float | None, stderr: float | None, decimals: int) -> str:
    """`+0.120 ± 0.004`, or the value alone where no standard error applies."""
    if value is None or stderr is None:
        return signed(value, decimals)
    error = f"{stderr:.{decimals}f}" if decimals < 8 else f"{stderr:.2e}"
    return f"{signed(value, decimals)} {PLUS_MINUS} {error}"


def brief(value: float | None, limit: float) -> str:
    """The value in five characters for inside a cell, as coarse as the limit asks; or nothing."""
    fine = max(0, decimals_for(limit) - 2)
    for decimals in (fine, max(0, fine - 1)):
        if value is not None and len(signed(-limit, decimals)) <= 5:
            return signed(value, decimals)
    return ""


def typeset(text: str) -> str:
    """The same text with true minus signs before digits; hyphens inside words stay."""
    return re.sub(r"(?<![\w.])-(?=[\d.])|(?<=\de)-(?=\d)", MINUS, text)


def plain(cell: str | int | float | bool | None) -> str:
    """A table cell as text: floats with four significant digits, None as nothing."""
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def is_numeric(cell: str | int | float | bool | None) -> bool:
    """Whether a cell is a number, or text that begins like one ("+1.2 ± 0.1", "3.4 s")."""
    if isinstance(cell, str):
        return cell[:1].isdigit() or (cell[:1] in "+-.<" + MINUS and cell[1:2].isdigit())
    return isinstance(cell, int | float) and not isinstance(cell, bool)


def visible(text: str) -> str:
    """Text whose line ends, tabs and control characters can be seen; spaces are kept."""
    signs = {"\n": "\u23ce", "\t": "\u21e5"}
    return "".join(
        signs.get(char) or (char if char.isprintable() else ascii(char)[1:-1]) for char in text
    )
