"""A scatter as the page needs it: places in a square of 100, ticks, and a legend of groups."""

from __future__ import annotations

from typing import Any

from ioi_fast.report.figures import Scatter
from ioi_fast.report.typesetting import decimals_for, signed, typeset

MOST_GROUPS = 6  # that have a look of their own


def scatter_view(scatter: Scatter) -> dict[str, Any]:
    """The dictionary of a scatter; with a diagonal both axes are one."""
    spans = {"x": _span(scatter.x), "y": _span(scatter.y)}
    if scatter.diagonal:
        both = _span([*scatter.x, *scatter.y])
        spans = {"x": both, "y": both}
    names = list(dict.fromkeys(scatter.groups))
    decimals = decimals_for(max(map(abs, (*spans["x"], *spans["y"]))))
    points = [
        {
            "x": f"{_share(x, spans['x']):.2f}",
            "y": f"{100 - _share(y, spans['y']):.2f}",
            "group": min(names.index(group), MOST_GROUPS - 1),
            "label": label,
            "text": f"{typeset(signed(x, decimals))}, {typeset(signed(y, decimals))}",
        }
        for x, y, label, group in zip(
            scatter.x, scatter.y, scatter.labels, scatter.groups, strict=True
        )
    ]
    return {
        "kind": "scatter",
        "points": points,
        "groups": list(enumerate(names)) if len(names) > 1 else [],
        "x_axis": scatter.x_axis,
        "y_axis": scatter.y_axis,
        "ticks": {
            name: [typeset(signed(v, decimals)) for v in span] for name, span in spans.items()
        },
        "zero": {name: _zero(span, name) for name, span in spans.items()},
        "diagonal": scatter.diagonal,
    }


def _span(values: list[float] | tuple[float, ...]) -> tuple[float, float]:
    """From the least to the largest value, with a margin; around a single one a unit."""
    low, high = min(values), max(values)
    margin = (high - low) / 20 or 0.5 * max(1.0, abs(low))
    return low - margin, high + margin


def _share(value: float, span: tuple[float, float]) -> float:
    return 100 * (value - span[0]) / (span[1] - span[0])


def _zero(span: tuple[float, float], name: str) -> str | None:
    """Where zero is, if it is inside."""
    if not span[0] < 0 < span[1]:
        return None
    share = _share(0.0, span)
    return f"{share if name == 'x' else 100 - share:.2f}"
