"""A heat-map as the page needs it: cells with their colours, numbers and what is said of them."""

from __future__ import annotations

from typing import Any

from ioi_fast.report import colours
from ioi_fast.report.figures import HeatMap
from ioi_fast.report.typesetting import brief, decimals_for, signed, typeset, with_error

# Wider heat-maps take the whole width of the page, and leave their cells empty on a phone.
NARROW_COLUMNS = 16
ROOMY_COLUMNS = 8
# No cell has room for a number beyond this.
INSCRIBED_COLUMNS = 20


def heat_map_view(heat: HeatMap) -> dict[str, Any]:
    """The dictionary of a heat-map."""
    decimals = max(0, decimals_for(heat.limit) - 1)
    columns = len(heat.column_labels)
    rows = [
        {"label": label, "cells": [_cell_view(heat, row, column) for column in range(columns)]}
        for row, label in enumerate(heat.row_labels)
    ]
    return {
        "kind": "heat",
        "unit": heat.unit,
        "row_axis": heat.row_axis,
        "column_axis": heat.column_axis,
        "columns": heat.column_labels,
        "rows": rows,
        "low": typeset(signed(-heat.limit, decimals)),
        "high": signed(heat.limit, decimals),
        "wide": columns > NARROW_COLUMNS,
        "dense": columns > ROOMY_COLUMNS,
    }


def _cell_view(heat: HeatMap, row: int, column: int) -> dict[str, Any]:
    value = heat.values[row][column]
    error = heat.stderr[row][column] if heat.stderr is not None else None
    share = 0.0 if value is None else value / heat.limit
    light, dark = colours.LIGHT.diverging(share), colours.DARK.diverging(share)
    decimals = decimals_for(heat.limit)
    inscribed = len(heat.column_labels) <= INSCRIBED_COLUMNS
    return {
        "label": heat.cell_label(row, column),
        "text": typeset(with_error(value, error, decimals)),
        "short": typeset(brief(value, heat.limit)) if inscribed else "",
        "light": colours.hex_code(light),
        "dark": colours.hex_code(dark),
        "light_ink": colours.hex_code(colours.LIGHT.ink(light)),
        "dark_ink": colours.hex_code(colours.DARK.ink(dark)),
        "marked": (row, column) in heat.marked,
        "missing": value is None,
    }
