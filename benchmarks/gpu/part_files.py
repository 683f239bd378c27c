"""A part's JSON file: whole after every row, so that nothing that comes later can lose one."""

from __future__ import annotations

import json
from pathlib import Path

from ioi_fast.benchmarks.gpu.units import Row
from ioi_fast.report.atomic import write_text
from ioi_fast.results import plain


class PartFile:
    """The rows of a part so far, which unit runs, and which are to come."""

    def __init__(self, path: Path, begun: dict[str, object] | None = None) -> None:
        """Goes on with the file at `path` if there is one and nothing new is begun."""
        self.path = path
        self.content = json.loads(path.read_text()) if begun is None else begun
        self.content.setdefault("units", [])
        self.content.setdefault("running", None)
        self.content.setdefault("rows", [])

    @property
    def rows(self) -> list[Row]:
        return self.content["rows"]

    @property
    def left(self) -> list[str]:
        """Units that have no row yet, in order."""
        done = {row["unit"] for row in self.rows}
        return [name for name in self.content["units"] if name not in done]

    def say(self, **facts: object) -> None:
        """Sets facts of the whole part and writes them."""
        self.content.update(facts)
        self.write()

    def add(self, unit: str, row: Row) -> Row:
        """Adds the row of a unit, which then runs no more, and writes it."""
        self.rows.append({"unit": unit, **finite(row)})
        self.say(running=None)
        return self.rows[-1]

    def write(self) -> None:
        write_text(self.path, json.dumps(self.content, indent=1, allow_nan=False) + "\n")


def finite(value: object) -> object:
    """The same with None where JSON has no number for it."""
    if isinstance(value, dict):
        return {str(key): finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(one) for one in value]
    return plain(value) if isinstance(value, float) else value


def rows_of(folder: Path, part: str) -> list[Row]:
    """Rows that a part of this run, or of one before it in the folder, has written; [] for none."""
    path = folder / f"{part}.json"
    return PartFile(path).rows if path.exists() else []
