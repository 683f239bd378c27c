"""Percentages in figures are a result's `relative`, whatever the sign of its base."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from compare import assert_close
from small_models import ragged_pairs, tiny_model

from ioi_fast import pair_sweep, path_patch
from ioi_fast.report.sweeps import heads_heat_map, pair_figures, percent_scale, ranking_bars


def results(metric: str = "logit_diff"):
    """A path patch, and the same with a base metric of the other sign."""
    result = path_patch(tiny_model(), ragged_pairs(), metric=metric)
    return result, dataclasses.replace(result, base=-result.base)


@pytest.mark.parametrize("which", [0, 1], ids=["as it is", "other sign"])
def test_percentages_are_relative(which: int) -> None:
    result = results()[which]
    percent = 100 * result.relative.double()
    heat_map = heads_heat_map(result, "t", "c")
    assert_close(torch.tensor(heat_map.values), percent, 1e-6)
    assert heat_map.unit == f"change of logit diff, % of {result.base.mean().abs():.3g}"
    bars = ranking_bars(result, "t", 4)
    strongest = percent.flatten()[percent.abs().flatten().argsort(descending=True)[:4]]
    assert_close(torch.tensor(bars.values), strongest, 1e-6)
    assert min(min(row) for row in heat_map.stderr) >= 0 and min(bars.stderr) >= 0


def test_bases_of_both_signs_are_there() -> None:
    means = [float(result.base.mean()) for result in results()]
    assert means[0] == -means[1] != 0


@pytest.mark.parametrize("sign", [1, -1])
def test_percentages_of_pairs_are_relative(sign: int) -> None:
    sweep = pair_sweep(tiny_model(), ragged_pairs())
    sweep = dataclasses.replace(sweep, base=sign * sweep.base)
    *_, bars = pair_figures(sweep, "c", 3)
    mean = abs(float(sweep.base.mean()))
    expected = [100 * effect / mean for _, _, effect, _ in sweep.ranking(3)]
    assert_close(torch.tensor(bars.values), torch.tensor(expected), 1e-6)


def test_a_metric_without_a_percentage_keeps_its_unit() -> None:
    assert percent_scale(results("rank")[0]) == (1.0, "change of rank")
    result, _ = results("kl")
    assert percent_scale(result) == (1.0, "change of kl")
    assert_close(
        torch.tensor(heads_heat_map(result, "t", "c").values), result.effect.double(), 1e-6
    )


def test_bars_mark_what_is_within_two_standard_errors_of_nothing() -> None:
    result, _ = results()
    bars = ranking_bars(result, "t", 9)
    marked = {label.removesuffix(" ~") for label in bars.labels if label.endswith(" ~")}
    assert marked == {row.sender for row in result.ranking() if not row.clear}
    assert marked and len(marked) < 9 and "~: within two standard errors of zero" in bars.caption
    alone = ranking_bars(path_patch(tiny_model(), ragged_pairs().select([0])), "t", 9)
    assert alone.stderr is None and not any(" ~" in label for label in alone.labels)
    *_, paths = pair_figures(pair_sweep(tiny_model(), ragged_pairs()), "c", 60)
    unclear = [not row.clear for row in pair_sweep(tiny_model(), ragged_pairs()).ranking(60)]
    assert [label.endswith(" ~") for label in paths.labels] == unclear and any(unclear)
