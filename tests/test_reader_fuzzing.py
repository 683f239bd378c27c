"""No changed file makes a reader raise what it should not, wait, fill the memory or look outside.

A thousand inputs a reader are slow tests; `python -m reader_fuzzing` tries any number.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from reader_fuzzing.attempts import fuzz
from reader_fuzzing.planted import PLANTED
from reader_fuzzing.readers import READERS


def holds(name: str, inputs: int, folder: Path) -> None:
    tally = fuzz(name, READERS[name], inputs, 1, folder)
    assert not tally.problems, "\n".join(tally.problems[:5])
    assert tally.inputs >= inputs * 0.99
    # Some were sound, some were not.
    assert inputs / 50 < tally.read < inputs * 49 / 50, tally


@pytest.mark.parametrize("name", ["header", "prompts"])
def test_changed_files(name: str, tmp_path: Path) -> None:
    holds(name, 150, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_a_thousand_changed_files(name: str, tmp_path: Path) -> None:
    holds(name, 1000, tmp_path)


SOON = ("raised KeyError", "ended with signal 6")


@pytest.mark.parametrize(
    "problem", [pytest.param(p, marks=[pytest.mark.slow] * (p not in SOON)) for p in PLANTED]
)
def test_every_planted_fault_is_found(problem: str, tmp_path: Path) -> None:
    tally = fuzz(problem, PLANTED[problem], 1, 1, tmp_path, patience=10)
    found = [one for one in tally.problems if one.startswith(f"{problem}: {problem}")]
    assert found and len(found) == len(tally.problems), tally
    assert (tmp_path / "problem0" / "file.json").is_file()
