"""Tokenizer files that are broken or hostile: ValueError naming the file, soon."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from tokenizer_folders import END_OF_TEXT, pipeline, vocabulary, write_folder

from ioi_fast.tokenizer import Tokenizer, plain_ids

IDS = vocabulary(END_OF_TEXT)
CONFIG, MAP = "tokenizer_config.json", "special_tokens_map.json"
FAST = {"tokenizer_class": "PreTrainedTokenizerFast"}


def refusal(directory: Path) -> str:
    with pytest.raises(ValueError) as error:
        Tokenizer.from_directory(directory)
    assert type(error.value) is ValueError and len(str(error.value)) < 2000
    return str(error.value)


@pytest.mark.parametrize("name", ["tokenizer", "vocab", "added_tokens", CONFIG[:-5], MAP[:-5]])
def test_files_that_are_no_objects_of_json(name: str, tmp_path: Path) -> None:
    write_folder(tmp_path)
    pairs = ", ".join(f'"{i}": 0' for i in range(60_000))
    texts = ["{", "[]", "5", "[" * 100_000, '{"a": ' * 100_000, '{"a": ' + "9" * 9999 + "}"]
    texts += ["{" + pairs + ', "7": 0}']
    for content in [*(text.encode() for text in texts), b'{"\xff": 0}']:
        (tmp_path / f"{name}.json").write_bytes(content)
        start = time.perf_counter()
        assert f"{name}.json" in refusal(tmp_path)
        assert time.perf_counter() - start < 2


@pytest.mark.parametrize("content", [b"a\n", b"a b c\n", b"a b\n\nc d\n", b"\xff \xff\n", b"a b\n"])
def test_merges_that_are_none(content: bytes, tmp_path: Path) -> None:
    write_folder(tmp_path, ids={"a": 0, "b": 1})
    (tmp_path / "merges.txt").write_bytes(content)
    assert "merges.txt" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("vocab", {"a": -1}, "the id of 'a' must be an id from 0"),
        ("vocab", {"a": 10**400}, "has 401 digits in ['a']"),
        ("added_tokens", {"x": True}, "'x' must be an id from 0"),
        ("added_tokens", {"\ud800": 857}, r"'\ud800'"),
        ("tokenizer_config", {"bos_token": 5}, "bos_token must be a token"),
        ("tokenizer_config", {"bos_token": {"content": "x", "lstrip": 1}}, "lstrip must be true"),
        ("tokenizer_config", {"add_prefix_space": "no"}, "add_prefix_space must be true or false"),
        ("tokenizer_config", {"tokenizer_class": []}, "tokenizer_class must be a name"),
        (
            "tokenizer_config",
            {"added_tokens_decoder": {"-1": {}}},
            "added_tokens_decoder must be an",
        ),
        ("tokenizer_config", {"added_tokens_decoder": [5]}, "added_tokens_decoder must be an obj"),
        ("special_tokens_map", {"additional_special_tokens": 5}, "must be a list, got int"),
        ("tokenizer", {"added_tokens": 5}, "added_tokens must be a list, got int"),
        ("tokenizer", {"model": {"type": "BPE", "vocab": {}, "merges": [["a"]]}}, "merges[0]"),
    ],
)
def test_wrong_values_are_named(name: str, content: Any, message: str, tmp_path: Path) -> None:
    write_folder(tmp_path, **{name: content})
    said = refusal(tmp_path)
    assert f"{name}.json" in said and message in said


def test_no_file_outside_the_folder_is_read(tmp_path: Path) -> None:
    outside = write_folder(tmp_path / "outside", slow=False, whole=pipeline(vocabulary("<s>")))
    names = {key: f"../outside/{key}" for key in ("vocab_file", "merges_file", "tokenizer_file")}
    names |= {"added_tokens_file": "../outside/x", "name_or_path": str(outside)}
    folder = write_folder(tmp_path / "in", tokenizer_config=names)
    assert Tokenizer.from_directory(folder).encode("<s>") != [856]
    link = tmp_path / "in" / "tokenizer.json"  # a link is how the hub's cache keeps its files
    link.symlink_to(outside / "tokenizer.json")
    assert Tokenizer.from_directory(folder).encode("<s>") != [856]  # listed in no added_tokens
    link.unlink()
    link.symlink_to("/dev/zero")  # no file: the slow form stands
    assert Tokenizer.from_directory(folder).vocab_size == len(IDS)


def test_a_file_too_large_for_a_tokenizer(tmp_path: Path) -> None:
    write_folder(tmp_path)
    for name in ("merges.txt", "vocab.json"):
        with (tmp_path / name).open("ab") as file:
            file.truncate(10**11)  # a hole, no bytes on the disk
        assert f"{name} must be smaller than" in refusal(tmp_path)


def test_padding_without_bound_is_off(tmp_path: Path) -> None:
    for settings in ({}, FAST):
        write_folder(tmp_path, whole=pipeline(IDS), tokenizer_config=settings)
        content = json.loads((tmp_path / "tokenizer.json").read_text())
        padding = {"strategy": {"Fixed": 10**12}, "direction": "Right", "pad_to_multiple_of": None}
        content["padding"] = {**padding, "pad_id": 0, "pad_type_id": 0, "pad_token": "!"}
        (tmp_path / "tokenizer.json").write_text(json.dumps(content))
        assert Tokenizer.from_directory(tmp_path).encode("a") == [64]


def test_replacements_without_bound_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, whole=pipeline(IDS), tokenizer_config=FAST)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    double = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
    content["normalizer"] = {"type": "Sequence", "normalizers": [double] * 40}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    assert "tokenizer.json: its replacements can make more than 10000" in refusal(tmp_path)


def test_a_prefix_that_would_end_the_process_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, whole=pipeline(IDS), tokenizer_config=FAST)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    ids = {"é": 0, "日": 1, "é本": 2, "日本": 3}
    model = {"vocab": ids, "merges": ["é 日"], "continuing_subword_prefix": "z"}
    content["model"] |= model
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    assert "tokenizer.json: merges[0] must have a second part that begins" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("part", "given", "call", "message"),
    [
        (
            "normalizer",
            {"type": "Precompiled", "precompiled_charsmap": ""},
            "",
            "tokenizer.json is",
        ),
        ("pre_tokenizer", {"type": "FixedLength", "length": 0}, "encode", "text cannot be"),
        (
            "decoder",
            {"type": "Strip", "content": "!", "start": 9, "stop": 9},
            "decode",
            "ids cannot",
        ),
    ],
)
def test_panics_of_the_library(
    part: str, given: dict, call: str, message: str, tmp_path: Path
) -> None:
    write_folder(tmp_path, whole=pipeline(IDS), tokenizer_config=FAST)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps({**content, part: given}))
    if not call:
        assert message in refusal(tmp_path)
        return
    tokenizer = Tokenizer.from_directory(tmp_path)
    with pytest.raises(ValueError, match=message) as error:
        getattr(tokenizer, call)({"encode": "!", "decode": [0]}[call])
    assert type(error.value.__cause__).__name__ == "PanicException"


def test_texts_that_are_not_unicode() -> None:
    tokenizer = Tokenizer(pipeline(IDS))
    for encode in (tokenizer.encode, lambda text: plain_ids(tokenizer, text)):
        with pytest.raises(ValueError, match=r"lone surrogate '\\ud83d' at character 3"):
            encode("Hi \ud83d")
