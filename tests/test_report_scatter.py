"""Scatters: points at their places, one scale for both axes with a diagonal, groups in a legend."""

from __future__ import annotations

import re

import pytest

from ioi_fast.report.figures import Page, Scatter
from ioi_fast.report.page import render
from ioi_fast.report.page_scatter import scatter_view


def scatter(**changed: object) -> Scatter:
    given = {
        "x": [0.0, 10.0, 5.0],
        "y": [-1.0, 1.0, 0.0],
        "labels": ["first", "<second>", "third"],
        "groups": ["a", "b", "a"],
        "x_axis": "across",
        "y_axis": "up",
    }
    return Scatter("Points", "caption", **{**given, **changed})


def test_places_of_points() -> None:
    view = scatter_view(scatter())
    places = [(float(p["x"]), float(p["y"])) for p in view["points"]]
    first, second, third = places
    assert first[0] < third[0] < second[0] and first[1] > third[1] > second[1], "y grows upwards"
    assert third == (50.0, 50.0) and all(0 < x < 100 and 0 < y < 100 for x, y in places)
    assert view["zero"]["y"] == "50.00" and view["zero"]["x"] is not None
    assert [p["group"] for p in view["points"]] == [0, 1, 0]
    assert view["groups"] == [(0, "a"), (1, "b")]


def test_a_diagonal_has_one_scale() -> None:
    view = scatter_view(scatter(diagonal=True))
    assert view["ticks"]["x"] == view["ticks"]["y"]
    equal = scatter_view(scatter(x=[1.0, 2.0, 7.0], y=[1.0, 2.0, 7.0], diagonal=True))
    for point in equal["points"]:
        assert float(point["x"]) == pytest.approx(100 - float(point["y"]), abs=0.01)


def test_one_point_and_many_groups() -> None:
    one = scatter_view(Scatter("t", "", [3.0], [3.0], ["p"], ["g"]))
    assert one["points"][0]["x"] == "50.00" and one["groups"] == []
    names = [f"g{index}" for index in range(9)]
    many = scatter_view(Scatter("t", "", range(9), range(9), names, names))
    assert max(point["group"] for point in many["points"]) == 5


def test_the_page_holds_every_point_and_escapes_its_label() -> None:
    html = render(Page("Page", "", [scatter()]))
    assert len(re.findall("<circle", html)) == 3 and "&lt;second&gt;" in html
    assert "<second>" not in html and "across" in html and 'class="legend"' in html


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": []}, "labels: expected at least one"),
        ({"x": [1.0]}, "x: expected 3 values, got 1"),
        ({"y": [1.0, None, 2.0]}, "y: entry 1 is None"),
        ({"y": [1.0, float("nan"), 2.0]}, "y: entry 1 is nan"),
        ({"groups": ["a"]}, "groups: expected 3 names, got 1"),
    ],
)
def test_scatters_that_are_none(changed: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scatter(**changed)
