"""A launch table as it is made: whole after every row, in the run's folder and where the engine
reads it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch

from ioi_fast.benchmarks.gpu.machine import INTERPRETER
from ioi_fast.benchmarks.gpu.setting import Setting
from ioi_fast.benchmarks.gpu.units import Row
from ioi_fast.kernels import tuned_tiles
from ioi_fast.outside.whole_files import write_text
from ioi_fast.results.revision import revision


class TableFile:
    """The rows of a table so far, on top of those that the engine has for this device."""

    def __init__(self, content: dict, path: Path, installed: Path | None) -> None:
        """Written to `path` and, if there is one, to where it is read."""
        self.content, self.path, self.installed = content, path, installed

    @classmethod
    def of(cls, setting: Setting, anew: bool) -> TableFile:
        """What this run has written, or, anew, what the engine reads now."""
        import triton

        device = INTERPRETER if setting.dry else torch.cuda.get_device_name(setting.device)
        name = tuned_tiles.file_name(device, triton.__version__)
        path, engine = setting.out / "launches" / name, tuned_tiles.FOLDER / name
        versions = {"device": device, "triton": triton.__version__, "torch": torch.__version__}
        content = {**versions, "commit": revision(), "dry": setting.dry, "rows": []}
        old = engine if anew or not path.exists() else path
        if old.exists() and not setting.dry:
            content["rows"] = tuned_tiles.read(old)["rows"]
        return cls(content, path, None if setting.dry or not writable(engine) else engine)

    def add(self, row: Row) -> Row:
        """Adds a row in the place of that for the same launches, and writes all."""
        kept = [one for one in self.content["rows"] if _what(one) != _what(row)]
        self.content["rows"] = [*kept, row]
        self.write()
        return row

    def write(self) -> None:
        text = json.dumps(self.content, indent=1, ensure_ascii=False) + "\n"
        write_text(self.path, text)
        if self.installed is not None and self.content["rows"]:
            write_text(self.installed, text)

    def places(self) -> Row:
        """Where the table lies, and whether the engine reads it."""
        found = {"table": str(self.path), "installed": self.installed is not None}
        if self.installed is None and not self.content["dry"]:
            found["put_it_into"] = str(tuned_tiles.FOLDER)
        return found


def _what(row: Row) -> tuple:
    return row["kernel"], row["precision"], tuple(sorted(row["key"].items()))


def writable(path: Path) -> bool:
    """Whether a file could be written there."""
    folder = path.parent if path.parent.exists() else path.parent.parent
    return os.access(folder, os.W_OK)
