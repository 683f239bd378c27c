"""Tokenizer files that are broken or hostile: ValueError naming the file, soon."""

from __future__ import annotations

import copy
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizer_folders import END_OF_TEXT, TEXTS, numbered, pipeline, vocabulary, write_folder
from tokenizers import AddedToken

from ioi_fast.tokenizer import Tokenizer, plain_ids

IDS = vocabulary(END_OF_TEXT)
CONFIG, MAP = "tokenizer_config.json", "special_tokens_map.json"
ODD = [
    None,
    True,
    5,
    -1,
    1.5,
    10**18,
    10**400,
    "",
    "x",
    "\ud800",
    "a" * 9999,
    [],
    [[]],
    {},
    {"": []},
]
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


def changed(content: Any, rng: random.Random) -> Any:
    """A copy with one value, somewhere, made another; or a key taken away or given to another."""
    if not isinstance(content, (dict, list)) or not content or rng.random() < 0.15:
        return rng.choice(ODD)
    content = copy.copy(content)
    key = rng.choice(list(content)) if isinstance(content, dict) else rng.randrange(len(content))
    how = rng.random()
    if how < 0.15:
        del content[key]
    elif how < 0.3 and isinstance(content, dict):
        content[str(rng.choice(ODD))] = content.pop(key)
    else:
        content[key] = changed(content[key], rng)
    return content


def mutated_folders(seed: int, n: int, directory: Path) -> Iterator[Path]:
    """Folders with every file, one to three of them changed in their values or in their bytes."""
    ids = {**{chr(97 + i): i for i in range(5)}, "ab": 5}
    backend = pipeline(IDS)
    backend.add_tokens([AddedToken("<s>", lstrip=True), AddedToken("[Space]", special=True)])
    backend.enable_truncation(5)
    backend.enable_padding(length=3)
    whole = json.loads(backend.to_str())
    whole["model"] |= {"vocab": ids, "merges": [["a", "b"]], "dropout": 0.1}
    whole["model"]["continuing_subword_prefix"] = ""
    whole["normalizer"] = {"type": "Replace", "pattern": {"Regex": "b+"}, "content": "cc"}
    whole["added_tokens"] = [{**t, "id": 6 + i} for i, t in enumerate(whole["added_tokens"])]
    special = {"bos_token": {"content": "<s>", "lstrip": True}, "additional_special_tokens": ["x"]}
    flags = {"add_prefix_space": True, "split_special_tokens": False, "model_max_length": 5}
    listed = {str(i): {"content": t} for t, i in numbered(ids, ["<s>", "x"]).items()}
    for i in range(n):
        rng = random.Random(f"{seed} {i}")
        kind = rng.choice(["GPT2Tokenizer", "PreTrainedTokenizerFast"])
        files: dict[str, Any] = {
            "vocab": ids,
            "added_tokens": numbered(ids, ["<s>", "x"]),
            MAP[:-5]: special,
            CONFIG[:-5]: {"tokenizer_class": kind, "eos_token": "x", **flags, **special},
        }
        if rng.random() < 0.7:
            files["tokenizer"] = whole
        if rng.random() < 0.4:
            files[CONFIG[:-5]]["added_tokens_decoder"] = listed
        for _ in range(rng.randint(1, 3)):
            name = rng.choice(list(files))
            files[name] = changed(files[name], rng)
        yield written(directory / str(i), files, rng)


def written(folder: Path, files: dict[str, Any], rng: random.Random) -> Path:
    folder.mkdir()
    for name, content in files.items():
        data = bytearray(json.dumps(content).encode())
        if rng.random() < 0.1:
            data[rng.randrange(len(data))] = rng.randrange(256)
        (folder / f"{name}.json").write_bytes(data)
    (folder / "merges.txt").write_bytes(b"#version: 0.2\na b\n")
    return folder


def read_mutated(seed: int, n: int, directory: Path) -> None:
    """Read each folder and use what came; prints one line of JSON for what may not be."""
    read = 0
    for folder in mutated_folders(seed, n, directory):
        start = time.perf_counter()
        try:
            tokenizer = Tokenizer.from_directory(folder)
            read += tokenizer is not None
            for text in TEXTS if tokenizer is not None else ():
                tokenizer.decode(tokenizer.encode(text))
        except ValueError as error:
            ids_only = type(error) is not ValueError or len(str(error)) > 2000
            if ids_only or not any(w in str(error) for w in (str(folder), "tokenized", "decoded")):
                print(json.dumps([folder.name, repr(error)[:500]]))
        except BaseException as error:
            print(json.dumps([folder.name, repr(error)[:500]]))
        if time.perf_counter() - start > 5:
            print(json.dumps([folder.name, "slow"]))
    # The peak of this program alone: that of getrusage begins with the size of the parent.
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0])
    print(json.dumps({"read": read, "peak_kib": peak}))


def mutations_hold(n: int, directory: Path) -> None:
    arguments = [sys.executable, "-P", __file__, "7", str(n), str(directory)]
    path = {"PYTHONPATH": ":".join(filter(None, sys.path))}
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=240, env=path)
    assert done.returncode == 0, done.stderr[-2000:]
    *problems, summary = done.stdout.splitlines()
    assert not problems, problems[:5]
    counts = json.loads(summary)
    assert n / 20 < counts["read"] < n * 19 / 20  # some were sound, some were not
    assert counts["peak_kib"] < 2**20


def test_mutated_folders(tmp_path: Path) -> None:
    mutations_hold(100, tmp_path)


@pytest.mark.slow
def test_many_mutated_folders(tmp_path: Path) -> None:
    mutations_hold(1000, tmp_path)


if __name__ == "__main__":
    read_mutated(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
