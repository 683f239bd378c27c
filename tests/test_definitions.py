"""docs/definitions.md says what is measured now."""

from __future__ import annotations

import pytest

from ioi_fast.benchmarks.definitions import CHOICES, PAGE, lines


@pytest.mark.slow
def test_the_page_is_what_is_measured() -> None:
    text = PAGE.read_text()
    written = [line for line in text.splitlines() if line.startswith("|")]
    measured = lines()
    assert len(written) == len(measured) == len(CHOICES) + 2
    for one, other in zip(written, measured, strict=True):
        *said, size = one.split("|")[1:-1]
        *names, found = other.split("|")[1:-1]
        assert said == names
        if "difference" not in size and "-" not in size:
            assert float(size) == pytest.approx(float(found), rel=0.1)
            assert float(found) > 0.01, "two definitions that give the same would be one"
