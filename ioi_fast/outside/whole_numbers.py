"""Whole numbers as callers write them: Python's, numpy's, or a tensor of one."""

from __future__ import annotations

import operator


def whole_number(value: object) -> int | None:
    """The int that a value stands for, or None; True and False stand for none.

    >>> whole_number(3), whole_number(3.0), whole_number(True)
    (3, None, None)
    """
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None
