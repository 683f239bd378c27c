"""The command line in the hands of a shell: pipes, odd terminals, outputs that can't be written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ioi_fast.cli import main
from ioi_fast.commands import ablate, demo, path_patch
from ioi_fast.report import extra

COMMAND = f"'{sys.executable}' -P -m ioi_fast.cli"
SMALL = ["--n", "4", "--threads", "1"]


def shell(line: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["sh", "-c", line],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("command", ["doctor", "path-patch --n 4 --senders mlps"])
def test_a_reader_that_goes_early_is_no_error(command: str) -> None:
    done = shell(f"{COMMAND} {command} | head -1")
    assert done.returncode == 0 and done.stderr == "" and len(done.stdout.splitlines()) == 1


def test_a_terminal_that_can_show_ascii_only(tmp_path: Path) -> None:
    line = f"{COMMAND} path-patch --n 4 --json '{tmp_path}/é.json'"
    done = shell(line, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "é.json").exists()


def never(*arguments: object, **options: object) -> None:
    raise AssertionError("the work has begun")


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands may check what they like, but not start."""
    monkeypatch.setattr(path_patch, "path_patch", never)
    monkeypatch.setattr(ablate, "ablate", never)
    monkeypatch.setattr(demo, "run_study", never)


@pytest.mark.parametrize(
    "arguments",
    [
        ["path-patch", "--json", "{file}/x.json"],
        ["path-patch", "--out", "{folder}"],
        ["ablate", "--json", "{folder}"],
        ["demo", "--out", "{file}/deeper/out"],
        ["demo", "--json", "/proc/no-such/x.json"],
    ],
)
def test_outputs_that_cannot_be_written_stop_before_the_work(
    arguments: list[str], no_work: None, tmp_path: Path, capsys
) -> None:
    (tmp_path / "file").write_text("")
    places = {"file": tmp_path / "file", "folder": tmp_path}
    assert main([*(part.format(**places) for part in arguments), *SMALL]) == 2
    said = capsys.readouterr().err
    assert "can't be written" in said or "is a folder" in said


@pytest.mark.parametrize("missing", ["rich", "jinja2"])
def test_a_missing_extra_stops_before_the_work(
    missing: str, no_work: None, tmp_path: Path, monkeypatch, capsys
) -> None:
    real = extra.import_module

    def without(name: str) -> object:
        if name.partition(".")[0] == missing:
            raise ModuleNotFoundError(name=missing)
        return real(name)

    monkeypatch.setattr(extra, "import_module", without)
    assert main(["path-patch", "--out", str(tmp_path / "x.html"), *SMALL]) == 2
    assert "ioi_fast[report]" in capsys.readouterr().err


def test_a_plan_takes_no_outputs(tmp_path: Path, capsys) -> None:
    assert main(["path-patch", "--plan", "--json", str(tmp_path / "x.json"), *SMALL]) == 2
    assert "--plan" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_too_many_threads_are_refused_and_none_are_started(capsys) -> None:
    before = torch.get_num_threads()
    assert main(["path-patch", "--n", "4", "--threads", "100000"]) == 2
    assert "threads must be at most" in capsys.readouterr().err
    assert torch.get_num_threads() == before


def test_a_sweep_without_effects_lists_no_strongest(capsys) -> None:
    assert main(["path-patch", "--senders", "5.0", "--receivers", "1.0.q", *SMALL]) == 0
    printed = capsys.readouterr().out
    assert "nothing that was tried changes the metric" in printed and "Strongest" not in printed
