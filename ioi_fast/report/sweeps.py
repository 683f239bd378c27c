"""Figures of a path-patching result: the heat-map of all heads and the strongest senders."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from ioi_fast.report.figures import BarList, HeatMap
from ioi_fast.results.pair_result import PairResult
from ioi_fast.results.result import Result, is_clear, near_zero

# Cells outlined in a heat-map.
_MARKED = 6
# Beside what is within two standard errors of zero.
_UNCLEAR = "~"


def heads_heat_map(result: Result, title: str, caption: str) -> HeatMap:
    """Layer × head effects of a sweep over all heads, in percent of the base metric if it can be.

    Raises ValueError for a result that is not [L, H].
    """
    if len(result.shape) != 2:
        raise ValueError(f"result must have an effect [L, H], got {list(result.shape)}")
    return _heat_map(result, title, caption, result.effect, result.stderr)


def _heat_map(
    result: Result | PairResult, title: str, caption: str, effect_LH: Tensor, stderr_LH: Tensor
) -> HeatMap:
    L, H = effect_LH.shape
    scale, unit = percent_scale(result)
    strongest = effect_LH.abs().flatten().argsort(descending=True)[:_MARKED].tolist()
    marked = {divmod(i, H) for i in strongest if effect_LH.flatten()[i] != 0}
    return HeatMap(
        title=title,
        caption=caption,
        values=(scale * effect_LH.double()).tolist(),
        stderr=_finite(scale * stderr_LH.double()),
        row_labels=[str(layer) for layer in range(L)],
        column_labels=[str(head) for head in range(H)],
        unit=unit,
        marked=marked,
    )


def pair_figures(result: PairResult, caption: str, count: int) -> list[HeatMap | BarList]:
    """The strongest path that leaves each head, that enters each head, and the strongest of all."""
    inputs, L, H, _, _ = result.shape
    maps = []
    for title, heads_first in (
        ("Strongest path from each head", (1, 2, 0, 3, 4)),
        ("Strongest path into each head", (3, 4, 0, 1, 2)),
    ):
        effect, stderr = (
            t.permute(heads_first).reshape(L, H, inputs * L * H)
            for t in (result.effect, result.stderr)
        )
        strongest = effect.abs().argmax(-1, keepdim=True)
        cells = (t.gather(-1, strongest).squeeze(-1) for t in (effect, stderr))
        maps.append(_heat_map(result, title, caption, *cells))
    ranking = result.ranking(count)
    if not ranking or not result.effect.any():
        return maps
    scale, unit = percent_scale(result)
    return [
        *maps,
        _bars(
            "Strongest paths",
            "the receiver sees what the sender makes of the new prompt",
            [(f"{row.sender} → {row.receiver}", row.effect, row.stderr) for row in ranking],
            scale,
            unit,
        ),
    ]


def ranking_bars(
    result: Result,
    title: str,
    count: int,
    *,
    ordered: bool = True,
    what: str = "the sender sees the new prompt",
) -> BarList:
    """The `count` senders of largest effect with standard errors, or all in the caller's order."""
    rows = result.ranking()
    if not ordered:
        order = {sender: place for place, sender in enumerate(result.senders)}
        rows.sort(key=lambda row: order[row.sender])
    return _bars(title, what, rows[:count], *percent_scale(result))


def _bars(
    title: str, what: str, rows: Sequence[tuple[str, float, float]], scale: float, unit: str
) -> BarList:
    """Rows (label, effect, standard error) as bars; those that are not clear have a mark."""
    known = not any(math.isnan(stderr) for _, _, stderr in rows)
    caption = f"Change when {what}, ± standard error over prompts."
    unclear = [known and not is_clear(effect, stderr) for _, effect, stderr in rows]
    if any(unclear):
        caption += f" {_UNCLEAR}: within two standard errors of zero."
    return BarList(
        title=title,
        caption=caption,
        labels=[
            f"{label} {_UNCLEAR}" if mark else label
            for (label, _, _), mark in zip(rows, unclear, strict=True)
        ],
        values=[scale * effect for _, effect, _ in rows],
        stderr=[scale * stderr for _, _, stderr in rows] if known else None,
        unit=unit,
    )


def percent_scale(result: Result | PairResult) -> tuple[float, str]:
    """The factor and unit in which effects are shown: percent of the base as in `relative`, or its
    own unit.

    Without one, as of KL and rank, or with a base near zero there is no percentage.
    """
    mean = abs(float(result.base.double().mean()))
    metric = str(result.provenance["metric"]).replace("_", " ")
    if result.relative is None or near_zero(result.base):
        return 1.0, f"change of {metric}"
    return 100 / mean, f"change of {metric}, % of {mean:.3g}"


def _finite(errors: object) -> list | None:
    return None if bool(errors.isnan().any()) else errors.tolist()
