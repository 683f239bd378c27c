"""Names with terminal escapes, markup or changes of direction are shown, and change nothing."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest

import ioi_fast
from ioi_fast.cli import main
from ioi_fast.report.figures import BarList, Page, Table
from ioi_fast.report.page import render
from ioi_fast.report.terminal import print_bars, print_table, say, say_lines

EVIL = "a\x1b[31mb\x9b2J\x07c\rd\x08e\u202ef\u2066g[red]h[/red]\nend\udcff"
SHOWN = r"a\x1b[31mb\x9b2J\x07c\rd\x08e\u202ef\u2066g[red]h[/red]⏎end\udcff"


def plain(text: str) -> bool:
    """Whether nothing is left that a terminal or a page would obey."""
    return all(char.isprintable() or char == "\n" for char in text)


def test_a_line_is_one_line() -> None:
    stream = io.StringIO()
    say(EVIL, stream)
    assert stream.getvalue() == SHOWN + "\n"
    stream = io.StringIO()
    say_lines("one\x1b\ntwo", stream)
    assert stream.getvalue() == "one\\x1b\ntwo\n"


def test_figures_in_a_terminal() -> None:
    stream = io.StringIO()
    print_table(Table(EVIL, EVIL, [EVIL, "x"], [[EVIL, 1.0]]), stream)
    print_bars(BarList(EVIL, EVIL, [EVIL], [1.0], unit=EVIL), stream)
    printed = stream.getvalue()
    assert plain(printed) and printed.count(SHOWN) == 8


def test_a_page() -> None:
    sections = [
        Table(EVIL, EVIL, [EVIL], [[EVIL]]),
        BarList(EVIL, EVIL, [EVIL], [1.0], unit=EVIL),
    ]
    html = render(Page(EVIL, EVIL, sections, {EVIL: EVIL}))
    assert plain(html) and html.encode() and html.count(SHOWN) >= 10


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The bundled model in a folder whose name is one for a terminal to obey."""
    source = Path(ioi_fast.__file__).parent / "demo" / "checkpoint"
    return Path(shutil.copytree(source, tmp_path / "m\x1b[31m\u202e[red]"))


def test_names_of_models_and_files(model: Path, tmp_path: Path, capsys) -> None:
    files = [f"{tmp_path}/x\x1b]0;t\x07.json", f"{tmp_path}/y\udcff.html"]
    asked = ["path-patch", "--n", "2", "--senders", "1.6", "--model", str(model)]
    assert main([*asked, "--json", files[0], "--out", files[1]]) == 0
    printed = capsys.readouterr()
    assert plain(printed.out) and plain(printed.err)
    assert r"x\x1b]0;t\x07.json" in printed.out and r"y\udcff.html" in printed.out
    html = Path(files[1]).read_text("utf-8")
    assert plain(html) and r"m\x1b[31m\u202e[red]" in html
    assert json.loads(Path(files[0]).read_text("utf-8"))["senders"] == ["1.6"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--model", EVIL],
        ["--position", EVIL],
        ["--senders", EVIL],
        ["--prompts", EVIL],
        ["--json", f"/proc/{EVIL}/x"],
        ["--knock-out", EVIL],
    ],
)
def test_complaints(arguments: list[str], capsys) -> None:
    assert main(["path-patch", "--n", "2", *arguments]) == 2
    printed = capsys.readouterr()
    assert plain(printed.err) and printed.err.count("\n") == 1 and printed.out == ""


def test_complaints_of_the_usage(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["path-patch", EVIL])
    assert plain(capsys.readouterr().err)
