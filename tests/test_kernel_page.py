"""docs/kernels.md has a line for every tile and every prediction."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

if find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)

from ioi_fast.benchmarks import roofline
from ioi_fast.benchmarks.kernel_page import PAGE
from ioi_fast.benchmarks.kernel_resources import TARGETS, cases


def test_every_tile_has_a_line_without_spills() -> None:
    lines = PAGE.read_text().splitlines()
    for case in cases():
        (line,) = [one for one in lines if one.startswith(f"| {case.name} |")]
        assert len(line.split("|")) == len(TARGETS) + 4 and "spilled" not in line


@pytest.mark.slow
def test_predictions_are_those_of_the_plans() -> None:
    text = PAGE.read_text()
    for line in roofline.lines():
        assert line in text
    assert all(line.startswith("| predicted |") for line in roofline.lines()[2:])
