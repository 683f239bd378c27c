"""Where results are written: whole or not at all, through links, and to plain files only."""

from __future__ import annotations

import json
import os

import pytest

from ioi_fast.cli import main
from ioi_fast.report.atomic import write_text

QUICK = ["path-patch", "--n", "2", "--senders", "1.6"]


def test_a_link_stays_one(tmp_path) -> None:
    target, link = tmp_path / "deep" / "target.json", tmp_path / "link.json"
    target.parent.mkdir()
    target.write_text("old")
    link.symlink_to(target)
    assert main([*QUICK, "--json", str(link)]) == 0
    assert link.is_symlink() and json.loads(target.read_text())["senders"] == ["1.6"]
    assert sorted(os.listdir(target.parent)) == ["target.json"]


def test_a_link_to_nothing_makes_its_target(tmp_path) -> None:
    link = tmp_path / "link.txt"
    link.symlink_to(tmp_path / "made.txt")
    write_text(link, "text")
    assert link.is_symlink() and (tmp_path / "made.txt").read_text() == "text"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("option", ["--json", "--out"])
def test_a_pipe_is_refused_before_the_work(tmp_path, option, capsys, monkeypatch) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    monkeypatch.setattr("ioi_fast.commands.path_patch.path_patch", pytest.fail)
    assert main([*QUICK, option, str(pipe)]) != 0
    assert f"{pipe} is a pipe or a device" in capsys.readouterr().err
    assert pipe.is_fifo()
    with pytest.raises(OSError, match="expected the name of a plain file"):
        write_text(pipe, "text")


@pytest.mark.parametrize("option", ["--json", "--out"])
def test_an_empty_name_is_refused(option, capsys) -> None:
    assert main([*QUICK, option, ""]) != 0
    assert "need the name of a file, got an empty one" in capsys.readouterr().err


def test_two_names_of_one_file_are_refused(tmp_path, capsys) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    files = ["--json", str(tmp_path / "a"), "--out", str(tmp_path / "b")]
    assert main([*QUICK, *files]) != 0
    assert "is asked for twice" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"),
    [("new/", "is a folder"), ("x" * 256, "name too long"), ("loop", "leads back to itself")],
)
def test_names_that_no_file_can_have_are_refused_before_the_work(
    name: str, message: str, tmp_path, capsys, monkeypatch
) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "pool")
    (tmp_path / "pool").symlink_to(tmp_path / "loop")
    monkeypatch.setattr("ioi_fast.commands.path_patch.path_patch", pytest.fail)
    assert main([*QUICK, "--json", f"{tmp_path}/{name}"]) != 0
    assert message in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == ["loop", "pool"] and (tmp_path / "loop").is_symlink()


def test_the_longest_name_can_be_written(tmp_path) -> None:
    assert write_text(tmp_path / ("x" * 255), "text").read_text() == "text"
