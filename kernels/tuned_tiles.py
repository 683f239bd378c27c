"""Launches that a GPU has chosen by its own clock, and where they are used: there alone.

A table is a file in launches/ for one device's name and one minor version of Triton, written by
`ioi-fast bench --backend triton --tune` (benchmarks/gpu/kernels/tuning.py). Where it has a row for
what is launched, its tile is taken instead of triton_tiles's choice. A row is a tile of
triton_tiles, so that no tile is ever launched that the tests have not compiled. Nothing is read,
and no device is asked for its name, before the first launch on a GPU.
"""

from __future__ import annotations

import json
import os
import re
from functools import cache
from pathlib import Path

import torch

from ioi_fast.kernels import triton_tiles
from ioi_fast.kernels.triton_tiles import Launch

FOLDER = Path(__file__).parent / "launches"

# What a row is for, by operation: sizes of a launch. Those that change from launch to launch are
# rounded up to a power of two, so that a row stands for all between; those of a model are exact.
# With one query a prompt, attention is a kernel of its own.
KEYS = {
    "layernorm_delta": ("columns",),
    "readout_delta": ("columns",),
    "mlp_in_delta": ("variants", "cells", "depth", "columns"),
    "head_write": ("cells", "depth", "columns"),
    "attention_delta": ("one_query", "variants", "keys", "width"),
}
ROUNDED_UP = ("variants", "cells", "keys")
# None where nothing is multiplied by a matrix.
PRECISIONS = {
    "layernorm_delta": (None,),
    "readout_delta": (None,),
    "mlp_in_delta": ("ieee", "tf32", "bf16"),
    "head_write": ("ieee",),
    "attention_delta": ("ieee", "tf32", "bf16"),
}
Key = tuple[int, ...]
Table = dict[tuple[str, str | None, Key], Launch]


def tuned(
    operation: str, precision: str | None, sizes: Key, device: torch.device, today: Launch
) -> Launch:
    """The launch of this device's table for these sizes (in the order of KEYS), or today's."""
    rows = table_of(device)
    return rows.get((operation, precision, key_of(operation, sizes)), today) if rows else today


def key_of(operation: str, sizes: Key) -> Key:
    """What a table's row for these sizes is found by.

    >>> key_of("mlp_in_delta", (9, 16, 768, 3072))
    (16, 16, 768, 3072)
    """
    names = KEYS[operation]
    return tuple(
        _power_of_two(size) if name in ROUNDED_UP else int(size)
        for name, size in zip(names, sizes, strict=True)
    )


def _power_of_two(size: int) -> int:
    return 1 << (max(1, size) - 1).bit_length()


@cache
def table_of(device: torch.device) -> Table:
    """The rows for a device, none in the interpreter; raises ValueError for a broken file."""
    if device.type != "cuda" or os.environ.get("TRITON_INTERPRET") == "1":
        return {}
    import triton

    return table_for(torch.cuda.get_device_name(device), triton.__version__, FOLDER)


def table_for(name: str, version: str, folder: Path) -> Table:
    """The rows for a device's name and a version of Triton, from their file if there is one."""
    path = folder / file_name(name, version)
    if not path.exists():
        return {}
    content = read(path)
    its_own = (content["device"], minor(content["triton"])) == (name, minor(version))
    # A dry run has timed nothing.
    if not its_own or content.get("dry"):
        return {}
    return dict(_row(path, index, row) for index, row in enumerate(content["rows"]))


def minor(version: str) -> str:
    """A version without what changes no kernel.

    >>> minor("3.6.0+git1234")
    '3.6'
    """
    return ".".join(version.split("+")[0].split(".")[:2])


def file_name(name: str, version: str) -> str:
    """The name of a table's file.

    >>> file_name("NVIDIA H100 80GB HBM3", "3.6.0")
    'nvidia-h100-80gb-hbm3-triton-3.6.json'
    """
    device = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return f"{device}-triton-{minor(version)}.json"


def read(path: Path) -> dict[str, object]:
    """A table's file as it stands, but for its rows; raises ValueError when it is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise ValueError(f"{path} is no launch table: {problem}") from problem
    if not isinstance(content, dict) or not isinstance(content.get("rows"), list):
        raise ValueError(f"{path} is no launch table: it has no rows")
    if not all(isinstance(content.get(name), str) for name in ("device", "triton")):
        raise ValueError(f"{path} is no launch table: it names no device or no version of triton")
    return content


def _row(path: Path, index: int, row: object) -> tuple[tuple[str, str | None, Key], Launch]:
    """A row as what it is found by and what it launches; raises ValueError naming it."""
    try:
        operation, precision, key = row["kernel"], row["precision"], row["key"]
        names = KEYS[operation]
        if precision not in PRECISIONS[operation]:
            raise ValueError(f"{operation} has no precision {precision!r}")
        found = tuple(key[name] for name in names)
        if len(key) != len(names) or key_of(operation, found) != found:
            raise ValueError(f"{key} is no key of {operation}")
        return (operation, precision, found), _tile(operation, key, row["tile"])
    except (KeyError, TypeError, AttributeError, ValueError) as problem:
        text = f"{type(problem).__name__}: {problem}"
        raise ValueError(f"{path}, row {index}, is no launch: {text}") from problem


def _tile(operation: str, key: dict[str, int], tile: dict[str, object]) -> Launch:
    for one in triton_tiles.covering(operation, key):
        if tile == tile_of(one):
            return one
    raise ValueError(f"{tile} is no tile of triton_tiles that does every shape of {key}")


def tile_of(launch: Launch) -> dict[str, object]:
    """A launch as a table's row has it."""
    return {"sizes": launch.constants, "warps": launch.warps, "stages": launch.stages}
