"""The readers of files: which files of a sound folder are changed, how they are read and used."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gpt2_files import gpt2_tokenizer
from tokenizer_folders import TEXTS

import ioi_fast
from ioi_fast.asked.circuit_files import circuit_from_dict, circuit_to_dict, load_circuit
from ioi_fast.asked.prompt_files import load_prompts
from ioi_fast.commands.finding_files import stored
from ioi_fast.report.figures import Page
from ioi_fast.report.page import render
from ioi_fast.tokenizer import Tokenizer
from reader_fuzzing.sound_files import checkpoint, circuit, finding, prompts, tokenizer


@dataclass(frozen=True, slots=True)
class Reader:
    """How to write sound files into a folder, which change, and how they are read and used.

    `files` are those that change, each with its kind ("json", "safetensors", "csv", "lines").

    `read` may raise ValueError or OSError that names the folder; `use` may raise ValueError.
    """

    write: Callable[[Path], None]
    files: dict[str, str]
    read: Callable[[Path], Any]
    use: Callable[[Any], object]


def _load(folder: Path) -> Any:
    return ioi_fast.load(folder)


def _run(model: Any) -> None:
    logits = model(torch.zeros(1, min(3, model.config.n_positions), dtype=torch.long))
    assert logits.shape[-1] == model.config.vocab_size


def _read_tokenizer(folder: Path) -> Any:
    return Tokenizer.from_directory(folder)


def _use_tokenizer(tokenizer: Any) -> None:
    for text in TEXTS if tokenizer is not None else ():
        tokenizer.decode(tokenizer.encode(text))


def _of_tokenizers(*files: str, fast: bool = False, listed: bool = True) -> Reader:
    kinds = {name: "lines" if name == "merges.txt" else "json" for name in files}
    of_class = "PreTrainedTokenizerFast" if fast else "GPT2Tokenizer"
    return Reader(
        lambda folder: tokenizer(folder, of_class, listed), kinds, _read_tokenizer, _use_tokenizer
    )


def _read_prompts(folder: Path, name: str) -> Any:
    return load_prompts(folder / name, gpt2_tokenizer())


def _use_prompts(pairs: Any) -> None:
    assert pairs.select([0]).orig.shape[0] == 1
    str(pairs)


def _read_circuit(folder: Path) -> Any:
    return load_circuit(folder / "circuit.json")


def _use_circuit(circuit: Any) -> None:
    content = circuit_to_dict(circuit)
    assert circuit_to_dict(circuit_from_dict(json.loads(json.dumps(content)))) == content


def _read_finding(folder: Path) -> Any:
    return stored(folder / "E1.json", "k")


def _use_finding(finding: Any) -> None:
    if finding is not None:
        render(Page("a page", "", [finding.table(), *finding.figures], {}))


_TOKENIZERS = ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json")
_WHOLE = {"model.safetensors": "safetensors"}
_INDEX = {"model.safetensors.index.json": "json"}
READERS: dict[str, Reader] = {
    "header": Reader(lambda folder: checkpoint(folder, False), _WHOLE, _load, _run),
    "index": Reader(lambda folder: checkpoint(folder, True), _INDEX, _load, _run),
    "config": Reader(
        lambda folder: checkpoint(folder, False), {"config.json": "json"}, _load, _run
    ),
    "tokenizer": _of_tokenizers("tokenizer.json", fast=True),
    "vocab": _of_tokenizers("vocab.json"),
    "merges": _of_tokenizers("merges.txt"),
    "added_tokens": _of_tokenizers("added_tokens.json", listed=False),
    "tokenizer_config": _of_tokenizers("tokenizer_config.json"),
    "special_tokens_map": _of_tokenizers("special_tokens_map.json", listed=False),
    "slow_folder": _of_tokenizers(*_TOKENIZERS, "added_tokens.json", listed=False),
    "fast_folder": _of_tokenizers(*_TOKENIZERS, "tokenizer.json", fast=True),
    "prompts": Reader(
        prompts, {"prompts.json": "json"}, lambda f: _read_prompts(f, "prompts.json"), _use_prompts
    ),
    "prompts_csv": Reader(
        prompts, {"prompts.csv": "csv"}, lambda f: _read_prompts(f, "prompts.csv"), _use_prompts
    ),
    "circuit": Reader(circuit, {"circuit.json": "json"}, _read_circuit, _use_circuit),
    "finding": Reader(finding, {"E1.json": "json"}, _read_finding, _use_finding),
}
