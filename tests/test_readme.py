"""The README says what is: its example gives its output, its table is the committed results'."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ioi_fast.benchmarks import results

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """Code blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def test_example_prints_what_the_readme_says(tmp_path: Path) -> None:
    (example,) = blocks("python")
    expected = README.split(example)[1].split("```")[2]
    assert len(example.splitlines()) <= 8
    run = subprocess.run(
        [sys.executable, "-P", "-c", example], capture_output=True, text=True, cwd=tmp_path
    )
    assert run.stderr == ""
    assert run.stdout.strip() == expected.strip()


def test_speed_table_is_that_of_committed_results() -> None:
    found = [results.read(path) for path in sorted(results.RESULTS.glob("*.json"))]
    assert found, "no results are committed"
    assert any(results.into_readme(README, one) == README for one in found)
    for one in found:
        assert all(job["commit"] and "+changes" not in job["commit"] for job in one["jobs"])


def test_results_that_were_not_measured_again_are_kept() -> None:
    machine = {"cpu": "x", "threads": 2}
    old = {"machine": machine, "jobs": [{"job": "A", "commit": "1"}, {"job": "B", "commit": "1"}]}
    new = {"machine": machine, "jobs": [{"job": "A", "commit": "2"}]}
    jobs = results.merged(new, old)["jobs"]
    assert [(job["job"], job["commit"]) for job in jobs] == [("A", "2"), ("B", "1")]
    with pytest.raises(ValueError, match="can't be kept beside"):
        results.merged({**new, "machine": {"cpu": "y"}}, old)


@pytest.mark.parametrize("command", re.findall(r"^(ioi-fast [^#\n]+)", README, re.M))
def test_commands_of_the_readme_parse(command: str) -> None:
    from ioi_fast.cli import parser

    parser().parse_args(shlex.split(command)[1:])


def test_files_that_the_readme_names_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
