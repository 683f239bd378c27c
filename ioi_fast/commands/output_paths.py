"""Where a command writes: found out before the work, and never onto what it reads."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from ioi_fast.ioi.form_faithfulness import form_files
from ioi_fast.outside.whole_files import try_out
from ioi_fast.report.extra import require

# Files of a checkpoint, whether they are there or not: new ones would be read by the next call.
_OF_CHECKPOINT = (
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "added_tokens.json",
    "special_tokens_map.json",
)
# What commands write themselves, which may stand in the model's folder.
_OURS = (".json", ".html")


def check_outputs(
    arguments: argparse.Namespace, *paths: str | os.PathLike | None, page: bool
) -> None:
    """Finds out before the work whether its results can be shown and written.

    Raises ImportError naming the extra, OSError naming the path, or ValueError for a path that the
    command reads, or that is asked for twice.
    """
    require("rich.console")
    if page:
        require("jinja2")
    if "" in paths:
        raise ValueError("--json and --out need the name of a file, got an empty one")
    given = [path for path in paths if path is not None]
    targets = [try_out(path) for path in given]
    read = list(_inputs(arguments))
    for index, (path, target) in enumerate(zip(given, targets, strict=True)):
        if any(_same(target, other) for other in targets[:index]):
            raise ValueError(f"{path} is asked for twice: the outputs need files of their own")
        for what, file in read:
            if _same(target, file):
                raise ValueError(f"{path} can't be written: it is {what} that the command reads")


def _inputs(arguments: argparse.Namespace) -> Iterator[tuple[str, Path]]:
    """The files that a command reads, as its options name them, and what each is."""
    for option in ("prompts", "circuit"):
        named = getattr(arguments, option, None)
        if named and os.path.exists(named):
            yield f"the file of --{option}", Path(named)
    if folder := getattr(arguments, "folder", None):
        yield from (("a file of FOLDER", file) for file in form_files(folder).values())
    if not (named := getattr(arguments, "model", None)):
        return
    model = Path(os.path.expanduser(named))
    if named == "demo":
        model = Path(str(files("ioi_fast"))) / "demo" / "checkpoint"
    if os.path.isdir(model):
        found = [file for file in _files(model) if file.suffix.lower() not in _OURS]
        for file in (*found, *(model / name for name in _OF_CHECKPOINT)):
            yield f"{file.name} of --model", file


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:  # which is said where it is read
        return []


def _same(target: Path, other: Path) -> bool:
    """Whether two paths mean one file, by links or on a file system that does not tell a from A."""
    try:
        return os.path.samefile(target, other)
    except (OSError, ValueError):  # one is not there
        pass
    try:
        other = Path(os.path.realpath(other))
        names = target.name.casefold(), other.name.casefold()
        return names[0] == names[1] and _same_folder(target.parent, other.parent)
    except ValueError:
        return False


def _same_folder(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return one == other
