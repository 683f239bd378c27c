"""The cost curve: what counts as worse than linear, and what its page says."""

from __future__ import annotations

import pytest

from ioi_fast.benchmarks.cost_curve import Point, page, places, worse


def line(*seconds: float) -> list[Point]:
    return [
        Point("prompts", str(10 * 2**n), 10.0 * 2**n, time, 2**20, 2**21, 5.0)
        for n, time in enumerate(seconds)
    ]


def test_every_series_has_its_points() -> None:
    assert len(places()) == len(set(places())) == 12
    assert {series for series, _ in places()} == {"prompts", "variants", "model"}


@pytest.mark.parametrize(
    ("seconds", "labels"),
    [
        ((1.0, 2.0, 4.0), []),
        ((1.0, 1.5, 2.0), []),
        ((1.0, 2.5, 4.0), []),
        ((1.0, 4.0, 16.0), ["20", "40"]),
        ((1.0, 1.0, 4.0), ["40"]),
    ],
)
def test_worse_than_linear_is_against_the_cheapest_smaller_point(seconds, labels) -> None:
    assert [point.label for point in worse(line(*seconds))] == labels


def test_the_page_has_a_row_a_point_and_a_verdict() -> None:
    text = page(line(1.0, 2.0))
    assert "| 10 | 1.00 | 100.00 | 5 | 1 | 2 |" in text and text.count("\n| 20 |") == 1
    assert "Nothing grows worse than linearly" in text
    assert "Worse than linear: prompts 20." in page(line(1.0, 9.0))
