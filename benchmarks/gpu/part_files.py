"""A part's JSON file: whole after every row, so that nothing that comes later can lose one."""

from __future__ import annotations

import json
from pathlib import Path

from ioi_fast.benchmarks.gpu.units import Row
from ioi_fast.outside.whole_files import write_text
from ioi_fast.results.result import plain


class PartFile:
    """The rows of a part so far, which unit runs, and which are to come."""

    def __init__(self, path: Path, begun: dict[str, object] | None = None) -> None:
        """Goes on with the file at `path` if there is one and nothing new is begun."""
        self.path = path
        self.content = json.loads(path.read_text()) if begun is None else begun
        if not isinstance(self.content, dict):
            raise ValueError(f"{path} is no part's file")
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


def rows_of(folder: Path, part: str, machine: dict | None = None) -> list[Row]:
    """Rows that a part has written into a folder; [] for none, for a file that is broken, and, with
    a machine, for one that another device or other versions wrote."""
    try:
        file = PartFile(folder / f"{part}.json")
    except (OSError, ValueError):
        return []
    if machine is not None and same_machine(file.content.get("machine"), machine):
        return file.rows
    return file.rows if machine is None else []


def same_machine(one: dict | None, other: dict) -> bool:
    """Whether figures of two parts may stand beside each other."""
    names = ("device", "driver", "torch", "triton", "source")
    return one is not None and all(one.get(name) == other.get(name) for name in names)
