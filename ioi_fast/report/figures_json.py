"""Figures as plain data and back, so that what was measured once can be shown again."""

from __future__ import annotations

from dataclasses import MISSING, fields

from ioi_fast.outside.quoting import quoted
from ioi_fast.report.figures import AttentionMap, BarList, HeatMap, Scatter, Section, Table

_KINDS = {kind.__name__: kind for kind in (HeatMap, BarList, AttentionMap, Scatter, Table)}


def figure_to_dict(figure: Section) -> dict[str, object]:
    """A figure as lists, texts and numbers, with its kind."""
    found: dict[str, object] = {"kind": type(figure).__name__}
    for one in fields(figure):
        value = getattr(figure, one.name)
        if isinstance(value, frozenset):
            value = sorted(value)
        found[one.name] = value
    return found


def figure_from_dict(found: object) -> Section:
    """The figure that a dictionary holds.

    Raises ValueError or TypeError naming what is no field of a figure of its kind, or misses, or
    has another type, and as figures do.
    """
    if not isinstance(found, dict):
        raise TypeError(f"a figure must be an object, got {quoted(found)}")
    kind = found.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ValueError(f"a figure must be one of {', '.join(_KINDS)}, got {quoted(kind)}")
    given = {name: value for name, value in found.items() if name != "kind"}
    _check_fields(_KINDS[kind], given)
    if kind == "HeatMap":
        given["marked"] = [_cell(cell) for cell in given.get("marked", ())]
    if kind == "AttentionMap" and len(given["weights"]) == 1:
        (given["weights"],) = given["weights"]  # one query's row
    if kind == "Table" and not all(isinstance(row, list) for row in given["rows"]):
        raise TypeError(f"rows must hold lists, got {quoted(given['rows'])}")
    return _KINDS[kind](**given)


def _check_fields(kind: type, given: dict[str, object]) -> None:
    known = {field.name: field for field in fields(kind)}
    for name, value in given.items():
        if name not in known:
            raise ValueError(f"{kind.__name__} has no {quoted(name)}")
        outer = known[name].type.split("[")[0]
        expected = {"str": str, "bool": bool, "Mapping": dict}.get(outer, list)
        if not isinstance(value, expected) and (
            value is not None or known[name].default is not None
        ):
            raise TypeError(f"{name} must be of type {expected.__name__}, got {quoted(value)}")
    for name, field in known.items():
        if name not in given and field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"{name} of {kind.__name__} is missing")


def _cell(cell: object) -> tuple[int, int]:
    if not isinstance(cell, list) or len(cell) != 2 or any(type(part) is not int for part in cell):
        raise TypeError(f"marked must hold pairs of a row and a column, got {quoted(cell)}")
    return tuple(cell)
