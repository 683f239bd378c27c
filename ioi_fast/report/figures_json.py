"""Figures as plain data and back, so that what was measured once can be shown again."""

from __future__ import annotations

from dataclasses import fields

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


def figure_from_dict(found: dict) -> Section:
    """The figure that a dictionary holds; raises ValueError for an unknown kind, and as figures
    do."""
    kind = found.get("kind")
    if kind not in _KINDS:
        raise ValueError(f"a figure must be one of {', '.join(_KINDS)}, got {kind!r}")
    given = {name: value for name, value in found.items() if name != "kind"}
    if kind == "HeatMap":
        given["marked"] = [tuple(cell) for cell in given["marked"]]
    if kind == "AttentionMap" and len(given["weights"]) == 1:
        (given["weights"],) = given["weights"]  # one query's row
    return _KINDS[kind](**given)
