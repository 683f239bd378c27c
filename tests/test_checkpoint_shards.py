"""What `load` refuses of an index and of several files: the message names file and tensor."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from checkpoints import (
    assert_same_logits,
    edited,
    lively_model,
    random_tokens,
    refused,
    write,
)
from safetensors.torch import load_file, save_file

from ioi_fast.model.checkpoint import load

C_ATTN = "transformer.h.1.attn.c_attn.weight"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return write(tmp_path / "model", lively_model())


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    lively_model().save_pretrained(tmp_path / "sharded", max_shard_size="40KB")
    return tmp_path / "sharded"


def edit_index(sharded: Path, change: Callable[[dict], None]) -> Path:
    index = sharded / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    change(content["weight_map"])
    index.write_text(json.dumps(content))
    return index


def test_an_index_that_names_pickle_files(sharded: Path) -> None:
    (sharded / "pytorch_model.bin").write_bytes(b"")
    index = edit_index(sharded, lambda placed: placed.update({C_ATTN: "pytorch_model.bin"}))
    refused(sharded, index, C_ATTN, "pytorch_model.bin")


@pytest.mark.parametrize("shard", ["nowhere.safetensors", "../a.safetensors", "/a.safetensors"])
def test_an_index_that_leads_nowhere_or_outside(shard: str, sharded: Path, tmp_path: Path) -> None:
    save_file({C_ATTN: torch.ones(48, 144)}, tmp_path / "a.safetensors")
    index = edit_index(sharded, lambda placed: placed.update({C_ATTN: shard}))
    refused(sharded, index, C_ATTN, repr(shard))


@pytest.mark.parametrize(
    "shard", ["sub/a.safetensors", "..", ".", "", "..\\a.safetensors", 3, None]
)
def test_an_index_with_odd_file_names(shard: object, sharded: Path) -> None:
    index = edit_index(sharded, lambda placed: placed.update({C_ATTN: shard}))
    refused(sharded, index, C_ATTN, "must be in a")


def test_an_index_and_files_that_disagree(sharded: Path) -> None:
    index = sharded / "model.safetensors.index.json"
    sound = index.read_text()
    placed = json.loads(sound)["weight_map"]
    other = next(file for file in placed.values() if file != placed[C_ATTN])
    edit_index(sharded, lambda placed: placed.update({C_ATTN: other}))
    refused(sharded, C_ATTN)
    edit_index(sharded, lambda placed: placed.pop(C_ATTN))
    refused(sharded, sharded / placed[C_ATTN], C_ATTN, "should not be here")
    for content in ("{}", '{"weight_map": {}}', '{"weight_map": []}'):
        index.write_text(content)
        refused(sharded, index, "weight_map")
    index.write_text(sound.replace('"weight_map": {', f'"weight_map": {{"{C_ATTN}": "{other}",'))
    refused(sharded, index, f"{C_ATTN!r} is given twice")


def test_a_tensor_in_two_files(sharded: Path) -> None:
    index = sharded / "model.safetensors.index.json"
    placed = json.loads(index.read_text())["weight_map"]
    other = next(file for file in placed.values() if file != placed[C_ATTN])
    copy = load_file(sharded / placed[C_ATTN])[C_ATTN]
    with edited(sharded / other) as tensors:
        tensors[C_ATTN] = copy
    refused(sharded, sharded / other, C_ATTN)
    index.unlink()
    refused(sharded, C_ATTN, other, placed[C_ATTN], "twice")


def test_a_tensor_missing_from_its_file(sharded: Path) -> None:
    file = max(sharded.glob("*.safetensors"), key=lambda shard: len(load_file(shard)))
    name, *rest = tensors = load_file(file)
    save_file({other: tensors[other] for other in rest}, file)
    refused(sharded, file, repr(name), "is missing, but model.safetensors.index.json says")


def test_two_sets_of_weights(sharded: Path, directory: Path) -> None:
    whole = directory / "model.safetensors"
    (sharded / "model.safetensors").write_bytes(whole.read_bytes())
    refused(sharded, sharded / "model.safetensors", "model.safetensors.index.json", "two models")
    # Beside model.safetensors other files do not count, as in transformers.
    (directory / "model.fp16.safetensors").write_bytes(whole.read_bytes())
    tokens = random_tokens(61)
    assert_same_logits(load(directory)(tokens), load(lively_model())(tokens))
