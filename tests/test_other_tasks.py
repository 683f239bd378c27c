"""docs/other_tasks.md: its code runs, and prints what the page says."""

from __future__ import annotations

import re

import pytest

from ioi_fast.benchmarks.other_tasks import PAGE, differences, run
from ioi_fast.ioi.experiments import EXPERIMENTS, ROLES

TEXT = PAGE.read_text()


@pytest.mark.slow
def test_the_page_is_what_its_code_prints() -> None:
    assert TEXT.count("```text") == TEXT.count("```python") == 8
    assert differences(TEXT, run(TEXT)) == []


def test_a_wrong_figure_or_name_is_seen() -> None:
    (accuracy,) = re.findall(r"accuracy (0\.\d+)", TEXT)
    worse = TEXT.replace(f"accuracy {accuracy}", f"accuracy {float(accuracy) - 0.06:.2f}")
    assert len(differences(TEXT, worse)) == 1
    nearly = TEXT.replace(f"accuracy {accuracy}", f"accuracy {float(accuracy) - 0.01:.2f}")
    assert differences(TEXT, nearly) == []
    assert len(differences(TEXT, TEXT.replace("4.6: -0.", "4.5: -0.", 1))) == 1
    assert differences(TEXT, TEXT + "more\n") != []
    assert len(differences("a 0.50 1.00\n", "a 0.50 2.00\n")) == 1
    assert len(differences("a 0.50\n", "a 0.50 2.00\n")) == 1


def test_blocks_share_names_and_what_they_print_replaces_what_was_said() -> None:
    page = "a\n```python\nx = 2\n```\n\n```python\nprint(x)\n```\n\n```text\n3\n```\n\nb\n"
    assert run(page) == page.replace("```text\n3", "```text\n2")
    assert run(run(page)) == run(page)
    with pytest.raises(ZeroDivisionError):
        run("```python\n1 / 0\n```\n")


def test_every_experiment_is_in_the_table_with_the_roles_that_it_reads() -> None:
    rows = [line.split("|")[1:3] for line in TEXT.splitlines() if line.startswith("| ")]
    named = {name: needs for names, needs in rows[1:] for name in re.findall(r"\b[DEF]\d*", names)}
    assert set(named) == set(EXPERIMENTS)
    for name, roles in ROLES.items():
        assert all(role in named[name] for role in roles), name
