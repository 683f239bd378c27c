"""`ioi-fast bench`: what it needs is said before it runs, and what it runs is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ioi_fast.benchmarks import results
from ioi_fast.benchmarks import run as jobs
from ioi_fast.cli import main
from ioi_fast.commands import bench


def test_what_is_missing_is_named(monkeypatch, capsys) -> None:
    monkeypatch.setattr(bench, "_NEEDED", ("json", "no_such_package"))
    assert main(["bench"]) == 2
    said = capsys.readouterr().err
    assert "needs no_such_package: pip install 'ioi_fast[bench]'" in said


def test_results_are_kept_in_a_checkout_only(monkeypatch, capsys, tmp_path: Path) -> None:
    monkeypatch.setattr(results, "README", tmp_path / "README.md")
    assert main(["bench", "--readme"]) == 2
    assert "readme: results are kept in a checkout" in capsys.readouterr().err


def test_results_of_another_machine_are_refused_before_anything_runs(
    monkeypatch, capsys, tmp_path: Path
) -> None:
    monkeypatch.setattr(jobs, "_measured", lambda *_: pytest.fail("the jobs were run"))
    old = tmp_path / "old.json"
    old.write_text(json.dumps({"machine": {"cpu": "another"}, "jobs": []}))
    before = old.read_text()
    assert main(["bench", "--readme", "--out", str(old)]) == 2
    assert "can't be kept beside" in capsys.readouterr().err and old.read_text() == before


@pytest.mark.slow
def test_an_expression_that_matches_nothing_fails(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    assert main(["bench", "-k", "nothing_of_this_name", "--out", str(out)]) == 2
    assert not out.exists()


@pytest.mark.slow
def test_a_job_is_measured_and_written(tmp_path: Path, capsys, monkeypatch) -> None:
    # In a process of pytest-xdist's pytest-benchmark measures nothing.
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    out = tmp_path / "new" / "results.json"
    assert main(["bench", "-k", "forward", "--threads", "1", "--out", str(out)]) == 0
    found = results.read(out)
    (job,) = found["jobs"]
    assert job["job"].startswith("J6") and found["machine"]["threads"] == 1
    assert job["error"] < 1e-4 and job["efficiency"] > 0 and len(job["seconds"]) > 2
    assert results.table(found) in capsys.readouterr().out
