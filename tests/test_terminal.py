"""Tables and bars in a terminal, in a pipe, in a narrow window, and without rich."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import time

import pytest
import sample_page
from rich.cells import cell_len

from ioi_fast.report.extra import require
from ioi_fast.report.figures import BarList, HeatMap, Table
from ioi_fast.report.progress import bar, progress
from ioi_fast.report.terminal import print_bars, print_heat_map, print_table

ESCAPE = "\x1b"


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def colour_terminal(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setenv("COLUMNS", "80")


def printed(show, figure, stream: io.StringIO | None = None) -> str:
    stream = io.StringIO() if stream is None else stream
    show(figure, stream)
    return stream.getvalue()


def plain_text(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def wide_map(columns: int = 25) -> HeatMap:
    labels = [str(column) for column in range(columns)]
    values = [[float(row * columns + column) for column in range(columns)] for row in range(2)]
    return HeatMap("Wide", "", values, row_labels=["0", "1"], column_labels=labels)


FIGURES = [
    (print_heat_map, sample_page.heat_map()),
    (print_heat_map, wide_map()),
    (print_bars, sample_page.bar_list()),
    (print_table, sample_page.table()),
]


@pytest.mark.parametrize(("show", "figure"), FIGURES)
def test_a_pipe_gets_plain_text(show, figure):
    text = printed(show, figure)
    assert ESCAPE not in text
    assert text.startswith(figure.title)
    assert plain_text(printed(show, figure, Screen())) != printed(show, figure, Screen())


@pytest.mark.parametrize("width", [16, 24, 40, 80, 133])
@pytest.mark.parametrize(("show", "figure"), FIGURES)
def test_nothing_is_wider_than_the_terminal(show, figure, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    lines = plain_text(printed(show, figure, Screen())).splitlines()
    assert max(map(cell_len, lines)) <= width
    assert not any("…" in line for line in lines)


def test_a_heat_map_holds_every_value_and_stars_the_marked():
    lines = printed(print_heat_map, sample_page.heat_map()).splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines[2:5]}
    assert rows["0"] == ["0.00", "+0.01", "+0.02", "+0.03", "–"]
    assert rows["2"] == ["+0.10", "-2.41*", "+0.12", "+0.13", "+0.14"]
    assert lines[1].split() == ["0", "1", "2", "3", "4"]
    assert lines[5] == "rows: layer, columns: head; logit difference; * strongest"
    # Numbers and their column labels end in one line.
    assert lines[1].index("3") == lines[2].index("+0.03") + 4


@pytest.mark.parametrize("width", [30, 80])
def test_a_wide_heat_map_is_split_and_complete(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    text = plain_text(printed(print_heat_map, wide_map(), Screen()))
    numbers = re.findall(r"[+]\d+\.\d|\b0\.0", text)
    assert sorted(map(float, numbers)) == [float(value) for value in range(50)]
    assert len(printed(print_heat_map, wide_map()).splitlines()) == 6


def test_twelve_heads_fit_eighty_columns():
    lines = plain_text(printed(print_heat_map, wide_map(12), Screen())).splitlines()
    assert len(lines) == 6
    assert lines[3].split() == ["1", *(f"+{value}.0" for value in range(12, 24))]


def test_blue_is_up_and_red_is_down():
    figure = HeatMap("t", "", [[2.0, -2.0, 0.1]], row_labels=["0"], column_labels=["0", "1", "2"])
    colours = re.findall(r"38;2;(\d+);(\d+);(\d+)m", printed(print_heat_map, figure, Screen()))
    (up, down, near) = ([int(part) for part in colour] for colour in colours)
    assert up[2] > up[0] and down[0] > down[2]
    assert max(near) - min(near) < 30


def test_bars_show_error_and_direction():
    lines = printed(print_bars, sample_page.bar_list()).splitlines()
    down, up, missing = lines[1:4]
    assert down.startswith("2.1  -2.414 ± 0.050  ") and up.startswith("1.4  +1.250 ± 0.250  ")
    axis = up.index("│")
    assert down.index("│") == axis == missing.index("│")
    assert down.index("█") < axis < up.index("█")
    assert down.count("█") == 21 and up.count("█") == 11 and missing.count("█") == 0


def test_numbers_stand_to_the_right_and_text_to_the_left():
    figure = Table("t", "", ["name", "value"], [["a", 1.5], ["b", 12345.678], ["c", None]])
    lines = printed(print_table, figure).splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["name", "value"],
        ["─" * len(lines[2].strip())],
        ["a", "1.5"],
        ["b", "1.235e+04"],
        ["c"],
        [],
    ]
    assert lines[3].rstrip().endswith("1.5") and len(lines[3].rstrip()) == len(lines[4].rstrip())


def test_hostile_text_reaches_the_terminal_as_text():
    figure = Table("[red]t[/red]", "", ["a"], [["[bold]x[/bold] \x1b[31m:smile:\n"]])
    text = printed(print_table, figure)
    assert "[red]t[/red]" in text and "[bold]x[/bold] \\x1b[31m:smile:⏎" in text
    assert "\x1b[31m" not in printed(print_table, figure, Screen())


@pytest.mark.parametrize(("show", "figure"), FIGURES)
def test_an_ascii_stream_is_served(show, figure):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    show(figure, stream)
    text = raw.getvalue().decode("ascii")
    assert figure.title in text
    assert ("+/-" in text) == isinstance(figure, BarList)


# Progress


def test_short_work_shows_no_bar():
    screen = Screen()
    with bar(total=3, description="layers", enabled=True, stream=screen) as advance:
        advance()
        advance(2)
    assert screen.getvalue() == ""


def test_long_work_shows_its_bar_and_wipes_it():
    screen = Screen()
    with bar(
        total=7, description="lay[e]rs", enabled=True, patience=0.01, stream=screen
    ) as advance:
        advance(5)
        time.sleep(0.5)
    text = plain_text(screen.getvalue())
    assert "lay[e]rs" in text and "5/7" in text
    # The last line is erased, and the cursor is back.
    assert screen.getvalue().rstrip("\r\n").endswith(("\x1b[2K", "\x1b[?25h"))


def test_the_bar_goes_away_when_the_work_fails():
    screen = Screen()
    with (
        pytest.raises(KeyboardInterrupt),
        bar(total=7, description="layers", enabled=True, patience=0.01, stream=screen),
    ):
        time.sleep(0.3)
        raise KeyboardInterrupt
    assert "\x1b[?25h" in screen.getvalue()
    length = len(screen.getvalue())
    time.sleep(0.3)
    assert len(screen.getvalue()) == length


def test_a_pipe_and_a_disabled_bar_get_nothing():
    for enabled, stream in ((True, io.StringIO()), (False, Screen())):
        with bar(
            total=None, description="x", enabled=enabled, patience=0.0, stream=stream
        ) as advance:
            advance()
            time.sleep(0.1)
        assert stream.getvalue() == ""


def test_progress_iterates_over_numbers_and_things():
    assert list(progress(3, "layers", enabled=True)) == [0, 1, 2]
    assert list(progress("ab", "letters", enabled=False)) == ["a", "b"]
    assert list(progress(iter([5]), "unknown length", enabled=True)) == [5]


def test_a_negative_total_is_refused():
    with (
        pytest.raises(ValueError, match="total: expected at least 0 steps or None, got -1"),
        bar(total=-1, description="x", enabled=False),
    ):
        pass


# Without rich


WITHOUT_RICH = """
import sys
sys.modules["rich"] = sys.modules["jinja2"] = None
from ioi_fast.report import page, progress, terminal
from ioi_fast.report.figures import Page, Table
table = Table("t", "", ["a"], [["b"]])
with progress.bar(total=1, description="x", enabled=False) as advance:
    advance()
for call in (
    lambda: terminal.print_table(table),
    lambda: page.render(Page("t", "", [table])),
    lambda: list(progress.progress(1, "x", enabled=True)),
):
    try:
        call()
    except ImportError as error:
        print(error)
"""


def test_a_missing_package_is_named_with_the_way_to_get_it():
    run = subprocess.run([sys.executable, "-c", WITHOUT_RICH], capture_output=True, text=True)
    lines = run.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["rich", "jinja2", "rich"], run.stderr
    assert all(line.endswith("pip install 'ioi_fast[report]'") for line in lines)


def test_an_error_inside_a_package_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("import no_such_module_anywhere\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_module_anywhere"):
        require("broken_package")
