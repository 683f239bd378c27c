"""The tensors of a checkpoint directory: which safetensors files hold them, and reading them.

Nothing is ever unpickled: other files of weights are named in errors and never opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ioi_fast.model.stored_tensor import StoredTensor
from ioi_fast.outside.json_files import parse_json, read_json_object
from ioi_fast.outside.quoting import cut, quoted

# Of a header, which names tensors alone: a thousand layers take 2 MiB.
_MOST_HEADER_BYTES = 8 * 2**20
PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})


def stored_tensors(directory: Path) -> tuple[list[StoredTensor], Path]:
    """The tensors of a directory, and the file to name when one is missing.

    An index (`model.safetensors.index.json`) says which files count; without one it is
    `model.safetensors`, and without that every `*.safetensors`. Raises ValueError naming the file,
    and the tensor where there is one, that is missing, unreadable or in the wrong file.
    """
    adapter = directory / "adapter_config.json"
    if adapter.exists():
        raise ValueError(f"{adapter}: adapters are not supported, merge it into the weights first")
    visible = sorted(p for p in directory.iterdir() if p.is_file() and p.name[0] != ".")
    indexes = [p for p in visible if p.name.endswith(".safetensors.index.json")]
    files = [p for p in visible if p.suffix == ".safetensors"]
    whole = [p for p in files if p.name == "model.safetensors"]
    if len(indexes) > 1:
        raise ValueError(f"{directory} holds {indexes[0].name} and {indexes[1].name}: keep one")
    if indexes:
        beside = {file.name for file in directory.iterdir() if file.is_file()}
        return list(_indexed(indexes[0], beside, whole)), indexes[0]
    if not files:
        raise ValueError(f"{directory} holds no *.safetensors file{_pickles_in(visible)}")
    files = whole or files
    where = files[0] if len(files) == 1 else directory
    return [tensor for file in files for tensor in _read_header(file)], where


def _pickles_in(files: list[Path]) -> str:
    names = ", ".join(p.name for p in files if p.suffix in PICKLE_SUFFIXES)
    hint = f"; pickle files are never opened ({names}): save the model as safetensors"
    return hint if names else ""


def _indexed(index: Path, beside: set[str], whole: list[Path]) -> Iterator[StoredTensor]:
    """The tensors of the files that an index names, each in the file that the index gives."""
    placed = _read_index(index, beside)
    for file in whole:
        if file.name not in placed.values():
            raise ValueError(f"{file} and the files of {index.name} are two models: keep one")
    missing: dict[str, set[str]] = {file: set() for file in placed.values()}
    for name, file in placed.items():
        missing[file].add(name)
    for file_name in sorted(missing):
        for tensor in _read_header(index.parent / file_name):
            if placed.get(tensor.name) != file_name:
                given = placed.get(tensor.name, "no file")
                raise ValueError(f"{tensor} should not be here: {index} gives it to {given}")
            missing[file_name].discard(tensor.name)
            yield tensor
        if missing[file_name]:
            raise ValueError(
                f"{index.parent / file_name}: tensor {quoted(min(missing[file_name]))} is missing, "
                f"but {index.name} says it is here"
            )


def _read_index(index: Path, beside: set[str]) -> dict[str, str]:
    """Tensor name -> file name, each a safetensors file that lies beside the index."""
    placed = read_json_object(index).get("weight_map")
    if not isinstance(placed, dict) or not placed:
        raise ValueError(
            f"{index} must hold a weight_map of tensors and files, got {quoted(placed)}"
        )
    for name, file in placed.items():
        tensor = f"{index}: tensor {quoted(name)}"
        if not isinstance(file, str) or not file or any(c in file for c in "/\\") or file == "..":
            raise ValueError(f"{tensor} must be in a file of this directory, got {quoted(file)}")
        if not file.endswith(".safetensors"):
            raise ValueError(f"{tensor} must be in a safetensors file, got {quoted(file)}")
        if file not in beside:
            raise ValueError(f"{tensor} should be in {quoted(file)}, which does not exist")
    return placed


def _read_header(file: Path) -> Iterator[StoredTensor]:
    _check_header(file)
    with _opened(file) as content:
        for name in content.keys():  # noqa: SIM118 (not a dict: it cannot be iterated over)
            piece = content.get_slice(name)
            yield StoredTensor(
                name=name,
                origin=str(file),
                dtype=piece.get_dtype(),
                shape=tuple(piece.get_shape()),
                fetch=partial(_fetch, file, name),
            )


def _fetch(file: Path, name: str) -> Tensor:
    # Opened anew for each tensor: pages of a closed mapping do not add up to a second model.
    with _opened(file) as content:
        return content.get_tensor(name)


def _check_header(file: Path) -> None:
    """Raises ValueError for a header that is too large, or is no JSON, or names a tensor twice:
    safetensors keeps the last."""
    with file.open("rb") as content:
        size = int.from_bytes(content.read(8), "little")
        header = content.read(size) if size <= _MOST_HEADER_BYTES else b""
    if size > _MOST_HEADER_BYTES:
        limit = f"at most {_MOST_HEADER_BYTES >> 20} MiB are read"
        raise ValueError(f"{_not_safetensors(file)}: its header has {size} bytes, {limit}")
    try:
        parse_json(header.decode("utf-8"), "its header")
    except ValueError as error:
        raise ValueError(f"{_not_safetensors(file)}: {error}") from error


@contextmanager
def _opened(file: Path) -> Iterator[safe_open]:
    try:
        with safe_open(str(file), framework="pt") as content:
            yield content
    except SafetensorError as error:
        raise ValueError(f"{_not_safetensors(file)}: {cut(error)}{_cut_tensor(file)}") from error


def _not_safetensors(file: Path) -> str:
    return f"{file} is truncated, corrupt or not a safetensors file"


def _cut_tensor(file: Path) -> str:
    """Which tensor the end of a truncated file cuts off, as far as its header can be read."""
    try:
        with file.open("rb") as content:
            header_size = int.from_bytes(content.read(8), "little")
            header = parse_json(content.read(header_size).decode("utf-8"), "header")
        header.pop("__metadata__", None)
        ends = sorted((entry["data_offsets"][1], name) for name, entry in header.items())
        available = file.stat().st_size - 8 - header_size
        end, name = next((end, name) for end, name in ends if end > available)
    except (OSError, ValueError, TypeError, LookupError, AttributeError, StopIteration):
        return ""
    return f" (tensor {quoted(name)} ends at byte {end} of the data, the file at {available})"
