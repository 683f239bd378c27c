"""What may be shown, in which colours, and how its numbers are written."""

from __future__ import annotations

import pytest
import sample_page
from sample_page import HEADS, HOSTILE, LAYERS

from ioi_fast.report import colours
from ioi_fast.report.figures import AttentionMap, BarList, HeatMap, Page, Table
from ioi_fast.report.typesetting import brief, decimals_for, signed, typeset, with_error

# Figures


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"values": [[0.0] * HEADS] * 2}, ValueError, "values: expected 3 rows of 5 values, got 2"),
        ({"values": [[0.0] * 4] * LAYERS}, ValueError, r"values\[0\]: expected 5 values, got 4"),
        ({"values": [[float("nan")] * HEADS] * LAYERS}, ValueError, r"values\[0\]: entry 0 is nan"),
        ({"values": [["1"] * HEADS] * LAYERS}, TypeError, r"values\[0\]: entry 0 is '1'"),
        ({"values": 3}, TypeError, "values: expected a sequence, got int"),
        ({"stderr": [[-1.0] * HEADS] * LAYERS}, ValueError, "expected at least 0"),
        ({"stderr": [[float("inf")] * HEADS] * LAYERS}, ValueError, "entry 0 is inf"),
        ({"marked": {(3, 0)}}, ValueError, r"marked: \(3, 0\) is outside a 3 x 5 grid"),
        ({"row_labels": []}, ValueError, "row_labels and column_labels"),
        ({"row_labels": [0, 1, 2]}, TypeError, "row_labels: entry 0 is 0, expected a string"),
    ],
)
def test_a_heat_map_is_validated(changes, error, message):
    with pytest.raises(error, match=message):
        sample_page.heat_map(**changes)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BarList("t", "", [], []), "labels: expected at least one"),
        (lambda: BarList("t", "", ["a"], [1.0, 2.0]), "values: expected 1 values, got 2"),
        (lambda: BarList("t", "", ["a"], [1.0], [-0.1]), "stderr: entry 0 is -0.1"),
        (lambda: AttentionMap("t", ["a", "b"], [0.5]), r"weights\[0\]: expected 2 values, got 1"),
        (lambda: AttentionMap("t", ["a", "b"], [[0.5, 0.5]]), "weights: expected 2 rows"),
        (lambda: AttentionMap("t", ["a", "b"], [0.7, 0.7]), "row 0 sums to 1.4000"),
        (lambda: AttentionMap("t", ["a", "b"], [0.7, None]), "row 0 holds None"),
        (lambda: AttentionMap("t", ["a"], [-0.1]), "expected at least 0"),
        (lambda: AttentionMap("t", ["a"], [1.0], roles={"END": 1}), "roles: END is at 1"),
        (lambda: Table("t", "", [], []), "columns: expected at least one"),
        (lambda: Table("t", "", ["a"], [["b", "c"]]), "row 0 has 2 cells for 1 columns"),
        (lambda: Table("t", "", ["a"], [[float("nan")]]), "row 0 holds nan"),
    ],
)
def test_figures_are_validated(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_wrong_sections_are_named():
    with pytest.raises(TypeError, match="entry 1 is a str, expected a HeatMap"):
        Page("t", "", [sample_page.table(), HOSTILE])


def test_arrays_and_tensors_are_taken_as_they_are():
    numpy = pytest.importorskip("numpy")
    torch = pytest.importorskip("torch")
    values = torch.arange(6.0).reshape(2, 3)
    heat = HeatMap(
        "t", "", values, numpy.ones((2, 3)), row_labels=["0", "1"], column_labels=["0", "1", "2"]
    )
    assert heat.values == ((0.0, 1.0, 2.0), (3.0, 4.0, 5.0))
    assert heat.stderr == ((1.0,) * 3,) * 2
    assert heat.limit == 5.0 and heat.cell_label(1, 2) == "1.2"


# Colours and numbers


@pytest.mark.parametrize("scheme", [colours.LIGHT, colours.DARK])
def test_the_scale_is_neutral_at_zero_and_ever_further_from_it(scheme):
    assert scheme.diverging(0.0) == scheme.diverging(-0.0) == scheme.up[0] == scheme.down[0]
    for sign in (1, -1):
        steps = [colours.luminance(scheme.diverging(sign * i / 50)) for i in range(51)]
        assert steps == sorted(steps, reverse=scheme is colours.LIGHT)
        red, _, blue = scheme.diverging(sign * 0.7)
        assert (blue > red) == (sign > 0)


@pytest.mark.parametrize("scheme", [colours.LIGHT, colours.DARK])
def test_numbers_in_cells_can_be_read(scheme):
    for step in range(-100, 101):
        background = scheme.diverging(step / 100)
        assert colours.contrast(scheme.ink(background), background) >= 4.5


def test_a_share_beyond_the_limit_is_refused():
    with pytest.raises(ValueError, match=r"share: expected -1 to 1, got 1\.5"):
        colours.LIGHT.diverging(1.5)


def test_numbers_are_signed_and_as_fine_as_the_scale():
    assert [decimals_for(limit) for limit in (0.02, 0.5, 2.4, 24, 2400, 1e6)] == [5, 4, 3, 2, 0, 0]
    assert signed(0.12345, 3) == "+0.123"
    assert signed(-0.0001, 3) == "0.000"
    assert signed(-2.5e-9, 11) == "-2.50e-09"
    assert signed(None, 3) == "–"
    assert with_error(-1.25, 0.0125, 2) == "-1.25 ± 0.01"
    assert with_error(1.25, None, 2) == "+1.25"
    assert typeset("-1.5e-6 of cpu-1, x-2") == "−1.5e−6 of cpu-1, x-2"
    assert [brief(-x, x) for x in (0.009, 0.093, 2.41, 123.0)] == ["", "-0.09", "-2.4", "-123"]
