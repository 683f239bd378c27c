"""One self-contained HTML page from a Page: no network, no fonts, nothing loaded but itself.

The figures become plain dictionaries of text, colours and percentages here, heat-maps and scatters
in page_heat_map.py and page_scatter.py; page.html lays them out and escapes every string, and
page.js shows what they already hold.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ioi_fast.outside.whole_files import write_text
from ioi_fast.report import colours
from ioi_fast.report.extra import require
from ioi_fast.report.figures import (
    AttentionMap,
    BarList,
    HeatMap,
    Page,
    Scatter,
    Section,
    Table,
)
from ioi_fast.report.page_heat_map import heat_map_view
from ioi_fast.report.page_scatter import scatter_view
from ioi_fast.report.typesetting import (
    decimals_for,
    is_numeric,
    plain,
    typeset,
    visible,
    with_error,
)


def write_page(page: Page, path: str | os.PathLike[str]) -> Path:
    """Write `page` as one HTML file and return its path; the file appears whole or not at all.

    Raises ImportError when jinja2 is missing. Example: `write_page(page, "out/report.html")`
    """
    return write_text(path, render(page))


def render(page: Page) -> str:
    """The HTML text of a page. Raises TypeError for anything but a Page."""
    if not isinstance(page, Page):
        raise TypeError(f"page: expected a Page, got {type(page).__name__}")
    jinja2 = require("jinja2")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        title=page.title,
        lead=page.lead,
        sections=[view(section) for section in page.sections],
        provenance=[(str(key), _provenance(value)) for key, value in page.provenance.items()],
        light_scale=_scale(colours.LIGHT),
        dark_scale=_scale(colours.DARK),
    )


def _shown(value: object) -> object:
    """What the template writes: text as a terminal has it, and no change of direction."""
    return visible(value) if type(value) is str else value  # a subclass is markup


def view(section: Section) -> dict[str, Any]:
    """One section as the template needs it."""
    views = {
        HeatMap: heat_map_view,
        BarList: _bar_list_view,
        AttentionMap: _attention_view,
        Scatter: scatter_view,
        Table: _table_view,
    }
    return {"title": section.title, "caption": section.caption, **views[type(section)](section)}


def _bar_list_view(bars: BarList) -> dict[str, Any]:
    errors = [error or 0.0 for error in bars.stderr or [0.0] * len(bars.values)]
    values = [value or 0.0 for value in bars.values]
    low = min(0.0, *(v - e for v, e in zip(values, errors, strict=True)))
    high = max(0.0, *(v + e for v, e in zip(values, errors, strict=True)))
    span = (high - low) or 1.0
    decimals = decimals_for(bars.limit)

    def place(value: float) -> str:
        return f"{100 * (value - low) / span:.3f}%"

    def extent(value: float) -> str:
        return f"{100 * value / span:.3f}%"

    return {
        "kind": "bars",
        "unit": bars.unit,
        "zero": place(0.0),
        "rows": [
            {
                "label": label,
                "text": typeset(with_error(bars.values[i], _at(bars.stderr, i), decimals)),
                "sign": "up" if value >= 0 else "down",
                "start": place(min(0.0, value)),
                "width": extent(abs(value)),
                "error_start": place(value - error),
                "error_width": extent(2 * error),
                "has_error": error > 0,
            }
            for i, (label, value, error) in enumerate(zip(bars.labels, values, errors, strict=True))
        ],
    }


def _attention_view(attention: AttentionMap) -> dict[str, Any]:
    roles: dict[int, list[str]] = {}
    for name, position in attention.roles.items():
        roles.setdefault(position, []).append(name)
    query = len(attention.tokens) - 1
    shown = attention.weights[-1]
    return {
        "kind": "attention",
        "head": attention.head,
        "query": query,
        "selectable": len(attention.weights) > 1,
        "weights": [[round(weight, 4) for weight in row] for row in attention.weights],
        "tokens": [
            {
                "text": visible(token),
                "role": " ".join(roles.get(index, [])),
                "weight": f"{shown[index]:.3f}",
            }
            for index, token in enumerate(attention.tokens)
        ],
    }


def _table_view(table: Table) -> dict[str, Any]:
    numeric = [
        bool(table.rows) and all(is_numeric(row[i]) for row in table.rows if row[i] is not None)
        for i in range(len(table.columns))
    ]
    return {
        "kind": "table",
        "columns": list(zip(table.columns, numeric, strict=True)),
        "rows": [
            [
                (typeset(plain(cell)) if is_number else plain(cell), is_number)
                for cell, is_number in zip(row, numeric, strict=True)
            ]
            for row in table.rows
        ],
    }


def _at(values: Any, index: int) -> float | None:
    return None if values is None else values[index]


def _provenance(value: object) -> str:
    """A provenance entry as one line of text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_provenance(item)}" for key, item in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(map(_provenance, value))
    return "none" if value is None else str(value)


def _scale(scheme: colours.Scheme) -> str:
    """The colour bar: stops of a CSS gradient from -limit to +limit."""
    return ", ".join(colours.hex_code(scheme.diverging(step / 12)) for step in range(-12, 13))
