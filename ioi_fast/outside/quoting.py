"""Values that came from outside, as error messages show them: on one line, and never long.

A file may hold a name of megabytes or one that moves a terminal's cursor; a message must not.
"""

from __future__ import annotations

import reprlib

_LONGEST_VALUE = 120
_LONGEST_MESSAGE = 1500
_LONGEST_TEXT = 400  # of at most four bytes a character: with a path still below 2 KB


def quoted(value: object) -> str:
    """A value as Python writes it, its middle left out where it is long.

    >>> quoted("x" * 1000)[:8], len(quoted([["y" * 1000]] * 1000)) <= 120
    ("'xxxxxxx", True)
    """
    return cut(_Short().repr(value), _LONGEST_VALUE)


def cut(text: object, longest: int = _LONGEST_TEXT) -> str:
    """A text without its middle where it is long, and with control characters written out.

    >>> cut("a\\nb"), cut("abcdefghijklmnop", 9)
    ('a\\\\nb', 'abcd … op')
    """
    shorter = _without_middle(str(text), longest)
    plain = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in shorter)
    return _without_middle(plain, longest)


def shortened(text: str) -> str:
    """A message whose middle is left out where it would take two kilobytes; else as it is."""
    return _without_middle(text, _LONGEST_MESSAGE)


def _without_middle(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    end = longest // 4
    return f"{text[: longest - end - 3]} … {text[-end:]}"


class _Short(reprlib.Repr):
    """`repr` of the outer levels and the first entries: the whole of a large value is not made."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 4
        self.maxstring = self.maxother = _LONGEST_VALUE
        self.maxdict = self.maxlist = self.maxtuple = 8

    def repr_int(self, number: int, level: int) -> str:
        # Python refuses to write more than 4,300 digits.
        bits = number.bit_length()
        return str(number) if bits < 400 else f"an integer of about {bits * 0.30103:.0f} digits"
