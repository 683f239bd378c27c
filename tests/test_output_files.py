"""Where results are written: whole or not at all, through links, and to plain files only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from ioi_fast.cli import main
from ioi_fast.outside.whole_files import try_out, write_text

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


@pytest.mark.parametrize("name", ["a\0b", "\ud800.json"], ids=["a NUL", "half a character"])
def test_what_is_no_name_is_refused_before_the_work(name: str, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("ioi_fast.commands.path_patch.path_patch", pytest.fail)
    assert main([*QUICK, "--json", f"{tmp_path}/{name}"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "--json" not in said and said.isascii()
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not os.path.exists("/proc/self"), reason="needs a folder that takes no files")
def test_a_folder_that_takes_nothing_is_found_before_the_work(capsys, monkeypatch) -> None:
    monkeypatch.setattr("ioi_fast.commands.path_patch.path_patch", pytest.fail)
    assert main([*QUICK, "--json", "/proc/self/x.json"]) == 2
    assert "/proc/self/x.json can't be written" in capsys.readouterr().err


def test_a_trial_leaves_nothing(tmp_path) -> None:
    assert try_out(tmp_path / "new" / "deep" / "x.json") == tmp_path / "new" / "deep" / "x.json"
    assert os.listdir(tmp_path) == []
    (tmp_path / "kept").mkdir()
    with pytest.raises(OSError, match="can't be written"):
        try_out(tmp_path / "kept" / ("x" * 200) / ("y" * 300) / "x.json")
    assert os.listdir(tmp_path) == ["kept"] and os.listdir(tmp_path / "kept") == []


def test_the_mode_is_kept_and_a_new_file_has_the_umasks(tmp_path) -> None:
    file = tmp_path / "file"
    before = os.umask(0o027)
    try:
        write_text(file, "new")
        assert file.stat().st_mode & 0o7777 == 0o640
        file.chmod(0o604)
        write_text(file, "newer")
        assert file.stat().st_mode & 0o7777 == 0o604
    finally:
        os.umask(before)


def test_links_at_a_name_that_could_be_foreseen_are_not_followed(tmp_path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("kept")
    for name in (f".{os.getpid()}.file.part", ".file.part", "file.part", "file.tmp"):
        (tmp_path / name).symlink_to(victim)
    write_text(tmp_path / "file", "text")
    assert victim.read_text() == "kept" and (tmp_path / "file").read_text() == "text"


def test_a_link_at_the_very_name_is_not_followed(tmp_path, monkeypatch) -> None:
    victim, link = tmp_path / "victim", tmp_path / f".{bytes(8).hex()}.part"
    victim.write_text("kept")
    link.symlink_to(victim)
    monkeypatch.setattr("os.urandom", bytes)
    with pytest.raises(OSError, match="was not written: File exists"):
        write_text(tmp_path / "file", "text")
    assert victim.read_text() == "kept" and link.is_symlink()
    assert not (tmp_path / "file").exists()


def test_a_chain_of_links_stays_one(tmp_path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("c")
    (tmp_path / "c").write_text("old")
    write_text(tmp_path / "a", "new")
    assert (tmp_path / "a").is_symlink() and (tmp_path / "b").is_symlink()
    assert (tmp_path / "c").read_text() == "new" and len(os.listdir(tmp_path)) == 3


def test_threads_with_one_target(tmp_path) -> None:
    texts = [str(index) * 200_000 for index in range(8)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda text: write_text(tmp_path / "file", text), texts * 3))
    assert (tmp_path / "file").read_text() in texts and os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, OSError(28, "No space left")])
def test_what_stops_a_write_leaves_the_old_file(stop, tmp_path, monkeypatch) -> None:
    file = tmp_path / "file"
    file.write_text("old")

    def raises(*arguments: object) -> None:
        raise stop

    monkeypatch.setattr("os.fsync", raises)
    with pytest.raises(BaseException) as raised:
        write_text(file, "new")
    assert isinstance(raised.value, OSError) == isinstance(stop, OSError)
    assert file.read_text() == "old" and os.listdir(tmp_path) == ["file"]


def test_a_terminated_command_leaves_nothing(tmp_path) -> None:
    program = (
        "import os, signal, sys, ioi_fast.cli as cli\n"
        "os.fsync = lambda file: os.kill(os.getpid(), signal.SIGTERM)\n"
        f"sys.argv = {['ioi-fast', *QUICK, '--json', str(tmp_path / 'x.json')]!r}\n"
        "cli.main()"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], timeout=120)
    assert done.returncode == 143 and os.listdir(tmp_path) == []


def test_results_are_shown_before_what_could_not_be_written(tmp_path, capsys, monkeypatch) -> None:
    def full(path: object, text: str) -> None:
        raise OSError(f"{path} was not written: No space left on device")

    monkeypatch.setattr("ioi_fast.commands.output.write_text", full)
    files = ["--json", str(tmp_path / "x.json"), "--out", str(tmp_path / "x.html")]
    assert main([*QUICK, *files]) == 2
    printed = capsys.readouterr()
    assert "1 senders x 2 prompts" in printed.out and f"written: {tmp_path}/x.html" in printed.out
    assert printed.err.count("\n") == 1 and "x.json was not written: No space" in printed.err
    assert os.listdir(tmp_path) == ["x.html"]


def test_the_longest_name_can_be_written(tmp_path) -> None:
    assert write_text(tmp_path / ("x" * 255), "text").read_text() == "text"
