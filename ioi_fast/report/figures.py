"""What a report shows, as plain data: checked once here, drawn by page.py and terminal.py.

Invariant: every number held is finite, or None where the quantity does not apply; shapes agree.
The figures know nothing of torch: tensors and arrays come in through their `tolist`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Row = tuple[float | None, ...]
Cell = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class HeatMap:
    """A grid of signed values, one cell per row and column label, zero in the middle of the scale.

    `values` and `stderr` are [rows][columns]; None stands for "not applicable". `marked` cells are
    outlined. Raises ValueError or TypeError naming the argument that does not fit.

    Example: `HeatMap("Heads to logits", "", [[0.1, -2.0]], row_labels=["0"],
    column_labels=["0", "1"], marked={(0, 1)})`
    """

    title: str
    caption: str
    values: Sequence[Sequence[float | None]]
    stderr: Sequence[Sequence[float | None]] | None = None
    row_labels: Sequence[str] = ()
    column_labels: Sequence[str] = ()
    unit: str = ""
    marked: Iterable[tuple[int, int]] = frozenset()
    row_axis: str = "layer"
    column_axis: str = "head"

    def __post_init__(self) -> None:
        rows, columns = len(self.row_labels), len(self.column_labels)
        if not rows or not columns:
            raise ValueError("row_labels and column_labels: expected at least one of each")
        _set(self, "row_labels", _texts("row_labels", self.row_labels))
        _set(self, "column_labels", _texts("column_labels", self.column_labels))
        _set(self, "values", _grid("values", self.values, rows, columns))
        if self.stderr is not None:
            _set(self, "stderr", _grid("stderr", self.stderr, rows, columns, least=0.0))
        _set(self, "marked", frozenset((int(row), int(column)) for row, column in self.marked))
        for row, column in self.marked:
            if not (0 <= row < rows and 0 <= column < columns):
                raise ValueError(f"marked: ({row}, {column}) is outside a {rows} x {columns} grid")

    @property
    def limit(self) -> float:
        """The largest |value|: the scale runs from -limit to +limit; 1.0 when all are zero."""
        return _largest(value for row in self.values for value in row)

    def cell_label(self, row: int, column: int) -> str:
        """The name of a cell: head 6 of layer 9 is "9.6"."""
        return f"{self.row_labels[row]}.{self.column_labels[column]}"


@dataclass(frozen=True, slots=True)
class BarList:
    """Labelled signed values with their standard errors, in the order given.

    Example: `BarList("Strongest senders", "", ["9.9", "10.7"], [-1.2, 0.9], stderr=[0.1, 0.1])`
    """

    title: str
    caption: str
    labels: Sequence[str]
    values: Sequence[float | None]
    stderr: Sequence[float | None] | None = None
    unit: str = ""

    def __post_init__(self) -> None:
        _set(self, "labels", _texts("labels", self.labels))
        if not self.labels:
            raise ValueError("labels: expected at least one")
        _set(self, "values", _row("values", self.values, len(self.labels)))
        if self.stderr is not None:
            _set(self, "stderr", _row("stderr", self.stderr, len(self.labels), least=0.0))

    @property
    def limit(self) -> float:
        """The largest |value|; 1.0 when all are zero."""
        return _largest(self.values)


@dataclass(frozen=True, slots=True)
class AttentionMap:
    """What one head attends to: weights over the tokens of one prompt, for one or every query.

    `weights` is [T], the last token's row, or [T][T] with queries first. `roles` names positions,
    such as {"IO": 3, "END": 14}. Weights are probabilities, so a row sums to at most one.
    """

    title: str
    tokens: Sequence[str]
    weights: Sequence[float] | Sequence[Sequence[float]]
    head: str = ""
    caption: str = ""
    roles: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _set(self, "tokens", _texts("tokens", self.tokens))
        count = len(self.tokens)
        if not count:
            raise ValueError("tokens: expected at least one")
        rows = _listed("weights", self.weights)
        square = bool(rows) and isinstance(rows[0], list | tuple)
        rows = _grid("weights", rows if square else [rows], count if square else 1, count, least=0)
        for index, row in enumerate(rows):
            if None in row:
                raise ValueError(f"weights: row {index} holds None; attention has no such cell")
            if sum(row) > 1.001:
                raise ValueError(f"weights: row {index} sums to {sum(row):.4f}, expected at most 1")
        _set(self, "weights", rows)
        _set(self, "roles", {str(name): int(position) for name, position in self.roles.items()})
        for name, position in self.roles.items():
            if not 0 <= position < count:
                raise ValueError(f"roles: {name} is at {position}, outside {count} tokens")


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text and numbers under column titles; None is shown as an empty cell."""

    title: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def __post_init__(self) -> None:
        _set(self, "columns", _texts("columns", self.columns))
        if not self.columns:
            raise ValueError("columns: expected at least one")
        _set(self, "rows", tuple(tuple(row) for row in self.rows))
        for index, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"rows: row {index} has {len(row)} cells for {len(self.columns)} columns"
                )
            for cell in row:
                _check_cell(f"rows: row {index}", cell)


@dataclass(frozen=True, slots=True)
class Scatter:
    """Points by two measures, each of a named group; with `diagonal` the line where both are equal.

    Example: `Scatter("Completeness", "", [2.8], [3.3], ["none"], ["class"], "F(C∖K)", "F(M∖K)")`
    """

    title: str
    caption: str
    x: Sequence[float]
    y: Sequence[float]
    labels: Sequence[str]
    groups: Sequence[str]
    x_axis: str = ""
    y_axis: str = ""
    diagonal: bool = False

    def __post_init__(self) -> None:
        _set(self, "labels", _texts("labels", self.labels))
        count = len(self.labels)
        if not count:
            raise ValueError("labels: expected at least one")
        for name in ("x", "y"):
            row = _row(name, getattr(self, name), count)
            if None in row:
                raise ValueError(
                    f"{name}: entry {row.index(None)} is None; a point has no such place"
                )
            _set(self, name, row)
        _set(self, "groups", _texts("groups", self.groups))
        if len(self.groups) != count:
            raise ValueError(f"groups: expected {count} names, got {len(self.groups)}")


Section = HeatMap | BarList | AttentionMap | Scatter | Table


@dataclass(frozen=True, slots=True)
class Page:
    """One report: a title, one paragraph, sections in reading order, and where it all came from."""

    title: str
    lead: str
    sections: Sequence[Section]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _set(self, "sections", tuple(self.sections))
        for index, section in enumerate(self.sections):
            if not isinstance(section, Section):
                raise TypeError(
                    f"sections: entry {index} is a {type(section).__name__}, "
                    "expected a HeatMap, BarList, AttentionMap, Scatter or Table"
                )
        _set(self, "provenance", dict(self.provenance))


def _set(figure: object, name: str, value: object) -> None:
    """Store the checked form of a field of a frozen dataclass."""
    object.__setattr__(figure, name, value)


def _listed(name: str, values: Any) -> list[Any]:
    """A list from a list, a tuple, an array or a tensor."""
    if hasattr(values, "tolist"):
        values = values.tolist()
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"{name}: expected a sequence, got {type(values).__name__}")
    return list(values)


def _texts(name: str, values: Iterable[Any]) -> tuple[str, ...]:
    values = _listed(name, values)
    for index, value in enumerate(values):
        if not isinstance(value, str):
            raise TypeError(f"{name}: entry {index} is {value!r}, expected a string")
    return tuple(values)


def _row(name: str, values: Any, length: int, least: float = -math.inf) -> Row:
    values = _listed(name, values)
    if len(values) != length:
        raise ValueError(f"{name}: expected {length} values, got {len(values)}")
    return tuple(_number(name, index, value, least) for index, value in enumerate(values))


def _grid(
    name: str, values: Any, rows: int, columns: int, least: float = -math.inf
) -> tuple[Row, ...]:
    values = _listed(name, values)
    if len(values) != rows:
        raise ValueError(
            f"{name}: expected {rows} rows of {columns} values, got {len(values)} rows"
        )
    return tuple(_row(f"{name}[{i}]", row, columns, least) for i, row in enumerate(values))


def _number(name: str, index: int, value: Any, least: float) -> float | None:
    if value is None:
        return None
    if isinstance(value, str):
        raise TypeError(f"{name}: entry {index} is {value!r}, expected a number or None")
    value = float(value)
    if not math.isfinite(value):
        raise ValueError(f"{name}: entry {index} is {value}; use None for 'not applicable'")
    if value < least:
        raise ValueError(f"{name}: entry {index} is {value}, expected at least {least:g}")
    return value


def _check_cell(name: str, cell: Any) -> None:
    if not isinstance(cell, Cell):
        raise TypeError(f"{name} holds a {type(cell).__name__}, expected text, a number or None")
    if isinstance(cell, float) and not math.isfinite(cell):
        raise ValueError(f"{name} holds {cell}; use None for 'not applicable'")


def _largest(values: Iterable[float | None]) -> float:
    return max((abs(value) for value in values if value is not None), default=0.0) or 1.0
