"""The figures of a report in a terminal: coloured there, plain text in a pipe or a file.

Invariant: nothing wider than the terminal is printed, and nothing but text reaches a stream that is
no terminal. The same figures make the page; see page.py.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from ioi_fast.report import colours
from ioi_fast.report.extra import require
from ioi_fast.report.figures import BarList, HeatMap, Table
from ioi_fast.report.typesetting import (
    decimals_for,
    is_numeric,
    plain,
    signed,
    visible,
    with_error,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

# Colours that can be told apart and read on a black and on a white terminal alike.
UP, DOWN, QUIET = (58, 134, 208), (214, 86, 68), (128, 128, 128)
TEXT_WIDTH = 100
BAR_WIDTH, LEAST_BAR_WIDTH = 32, 8
UNBOUNDED = 10_000
ASCII = str.maketrans({"±": "+/-", "–": "-", "−": "-", "→": "->", "×": "x", "“": '"', "”": '"'})


def say(text: object, stream: TextIO | None = None) -> None:
    """Print one line, whatever stands in the names that it tells of."""
    print(visible(str(text)), file=sys.stdout if stream is None else stream)


def say_lines(text: object, stream: TextIO | None = None) -> None:
    """Print lines of text, each as `say` does."""
    for line in str(text).split("\n"):
        say(line, stream)


def print_table(table: Table, stream: TextIO | None = None) -> None:
    """Print a table: numbers to the right, long text folded into its column."""
    console = _console(stream)
    grid = _grid(box=require("rich.box").SIMPLE_HEAD)
    for index, title in enumerate(table.columns):
        cells = [row[index] for row in table.rows if row[index] is not None]
        right = bool(cells) and all(map(is_numeric, cells))
        header = _text(console, title, "bold")
        grid.add_column(header, justify="right" if right else "left", overflow="fold")
    for row in table.rows:
        grid.add_row(*(_text(console, plain(cell)) for cell in row))
    _print_figure(console, table.title, grid, table.caption)


def print_heat_map(heat: HeatMap, stream: TextIO | None = None) -> None:
    """Print a heat-map: blue up, red down, the marked cells starred; split where it is too wide."""
    console = _console(stream)
    gap, blocks = _blocks(console, heat)
    grids = [_heat_block(console, heat, block, gap) for block in blocks]
    note = f"rows: {heat.row_axis}, columns: {heat.column_axis}"
    note += f"; {heat.unit}" if heat.unit else ""
    note += "; * strongest" if heat.marked else ""
    _print_figure(console, heat.title, *grids, note, heat.caption)


def print_bars(bars: BarList, stream: TextIO | None = None) -> None:
    """Print labelled values, each with its standard error and a bar from zero."""
    console = _console(stream)
    decimals = decimals_for(bars.limit)
    errors = bars.stderr or [None] * len(bars.values)
    numbers = [with_error(v, e, decimals) for v, e in zip(bars.values, errors, strict=True)]
    width = _bar_width(console, [visible(label) for label in bars.labels], numbers)
    grid = _grid()
    grid.add_column(justify="right", overflow="fold")
    grid.add_column(justify="right", overflow="fold")
    grid.add_column(no_wrap=True)
    for label, number, value in zip(bars.labels, numbers, bars.values, strict=True):
        bar = _bar(console, bars, value, width) if width else ""
        grid.add_row(_text(console, label, "bold"), _text(console, number), bar)
    _print_figure(console, bars.title, grid, bars.unit, bars.caption)


def _console(stream: TextIO | None) -> Console:
    """A console that draws no escape codes, and cuts nothing, when `stream` is no terminal."""
    stream = sys.stdout if stream is None else stream
    make = require("rich.console").Console
    console = make(file=stream, highlight=False, markup=False, emoji=False, force_jupyter=False)
    if not console.is_terminal:
        console.width = UNBOUNDED
    return console


def _print_figure(console: Console, title: str, *parts: Grid | str) -> None:
    """Print a title, then grids and paragraphs, then an empty line."""
    _print_paragraph(console, title, "bold")
    for part in parts:
        if isinstance(part, str):
            _print_paragraph(console, part, "dim")
        else:
            console.print(part)
    console.print()


def _print_paragraph(console: Console, text: str, style: str) -> None:
    for line in textwrap.wrap(visible(text), min(console.width, TEXT_WIDTH)):
        console.print(_text(console, line, style), soft_wrap=True)


def _grid(box: object = None, gap: int = 2) -> Grid:
    padding = (0, gap, 0, 0)
    return require("rich.table").Table(
        box=box, show_header=box is not None, pad_edge=False, padding=padding, show_edge=False
    )


def _text(console: Console, text: str, style: str = "") -> Text:
    """Text free of markup and control characters that the stream's encoding can carry."""
    text = visible(text)
    try:
        text.encode(console.encoding)
    except UnicodeEncodeError:
        text = text.translate(ASCII).encode(console.encoding, "replace").decode(console.encoding)
    return require("rich.text").Text(text, style=style)


def _blocks(console: Console, heat: HeatMap) -> tuple[int, list[range]]:
    """The gap between columns and the runs of columns that fit the width; one run if possible."""
    cell = _number_width(heat) + 1
    room = console.width - max(map(len, heat.row_labels)) - 1
    count = len(heat.column_labels)
    for gap in (2, 1, 0):
        if count * (cell + gap) + gap <= room:
            return gap, [range(count)]
    fitting = max(1, (room - 2) // (cell + 2))
    return 2, [range(start, min(start + fitting, count)) for start in range(0, count, fitting)]


def _heat_decimals(heat: HeatMap) -> int:
    return max(0, decimals_for(heat.limit) - 1)


def _heat_block(console: Console, heat: HeatMap, columns: range, gap: int) -> Grid:
    grid = _grid(gap=gap)
    for _ in range(len(columns) + 1):
        grid.add_column(no_wrap=True)
    width, label_width = _number_width(heat), max(map(len, heat.row_labels))
    # Justified here and not by rich, so that numbers and labels end in one line before the stars.
    labels = [_text(console, f"{heat.column_labels[j]:>{width}} ", "dim") for j in columns]
    grid.add_row("", *labels)
    for row, label in enumerate(heat.row_labels):
        cells = [_heat_cell(console, heat, row, column) for column in columns]
        grid.add_row(_text(console, f"{label:>{label_width}} ", "dim"), *cells)
    return grid


def _heat_cell(console: Console, heat: HeatMap, row: int, column: int) -> Text:
    value, marked = heat.values[row][column], (row, column) in heat.marked
    number = signed(value, _heat_decimals(heat))
    text = f"{number:>{_number_width(heat)}}{'*' if marked else ' '}"
    if value is None:
        return _text(console, text, "dim")
    share = value / heat.limit
    colour = colours.mixed(QUIET, UP if share > 0 else DOWN, min(1.0, 2 * abs(share)))
    weight = "bold " if marked or abs(share) >= 0.5 else ""
    return _text(console, text, weight + colours.hex_code(colour))


def _number_width(heat: HeatMap) -> int:
    number = signed(-heat.limit, _heat_decimals(heat))
    return max(len(number), *map(len, heat.column_labels))


def _bar_width(console: Console, labels: Sequence[str], numbers: Sequence[str]) -> int:
    """The columns left for bars, 0 when that is too few to show anything."""
    left = console.width - max(map(len, labels)) - max(map(len, numbers)) - 5
    return min(BAR_WIDTH, left) if left >= LEAST_BAR_WIDTH else 0


def _bar(console: Console, bars: BarList, value: float | None, width: int) -> Text:
    """A bar from a common zero line: to the left for negative values, to the right for others."""
    block, line = ("#", "|") if console.options.ascii_only else ("█", "│")
    lowest = min(0.0, *(number or 0.0 for number in bars.values))
    highest = max(0.0, *(number or 0.0 for number in bars.values))
    scale = width / ((highest - lowest) or 1.0)
    before = round(-lowest * scale)
    length = round(abs(value or 0.0) * scale)
    bar = _text(console, "")
    if value is not None and value < 0:
        bar.append(" " * (before - length))
        bar.append(block * length, colours.hex_code(DOWN))
        return bar.append(line, "dim")
    bar.append(" " * before).append(line, "dim")
    return bar.append(block * length, colours.hex_code(UP))
