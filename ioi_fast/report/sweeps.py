"""Figures of a path-patching result: the heat-map of all heads and the strongest senders."""

from __future__ import annotations

import math

from ioi_fast.report.figures import BarList, HeatMap
from ioi_fast.results import Result

# Cells outlined in a heat-map.
_MARKED = 6


def heads_heat_map(result: Result, title: str, caption: str) -> HeatMap:
    """Layer × head effects of a sweep over all heads, in percent of the base metric if it can be.

    Raises ValueError for a result that is not [L, H].
    """
    if len(result.shape) != 2:
        raise ValueError(f"result must have an effect [L, H], got {list(result.shape)}")
    L, H = result.shape
    scale, unit = percent_scale(result)
    strongest = result.effect.abs().flatten().argsort(descending=True)[:_MARKED].tolist()
    marked = {divmod(i, H) for i in strongest if result.effect.flatten()[i] != 0}
    return HeatMap(
        title=title,
        caption=caption,
        values=(scale * result.effect.double()).tolist(),
        stderr=_finite(scale * result.stderr.double()),
        row_labels=[str(layer) for layer in range(L)],
        column_labels=[str(head) for head in range(H)],
        unit=unit,
        marked=marked,
    )


def ranking_bars(
    result: Result,
    title: str,
    count: int,
    *,
    ordered: bool = True,
    what: str = "the sender sees the new prompt",
) -> BarList:
    """The `count` senders of largest effect with standard errors, or all in the caller's order."""
    scale, unit = percent_scale(result)
    rows = list(
        zip(
            result.senders,
            (scale * result.effect.double()).flatten().tolist(),
            (abs(scale) * result.stderr.double()).flatten().tolist(),
            strict=True,
        )
    )
    if ordered:
        rows = sorted(rows, key=lambda row: -abs(row[1]))
    labels, values, errors = zip(*rows[:count], strict=True)
    return BarList(
        title=title,
        caption=f"Change when {what}, ± standard error over prompts.",
        labels=labels,
        values=values,
        stderr=None if any(math.isnan(error) for error in errors) else errors,
        unit=unit,
    )


def percent_scale(result: Result) -> tuple[float, str]:
    """The factor and unit in which effects are shown: percent of the base, or its own unit.

    A base near zero (such as KL's) makes no percentage.
    """
    mean = float(result.base.double().mean())
    metric = str(result.provenance["metric"]).replace("_", " ")
    spread = float(result.base.double().abs().mean())
    if metric == "kl" or abs(mean) < 1e-3 * max(spread, 1e-9) or abs(mean) < 1e-6:
        return 1.0, f"change of {metric}"
    return 100 / abs(mean), f"change of {metric}, % of {mean:.3g}"


def _finite(errors: object) -> list | None:
    return None if bool(errors.isnan().any()) else errors.tolist()
