"""Prompt files as users have them, from records of ours."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from gpt2_files import gpt2_tokenizer

from ioi_fast.asked.prompt_files import load_prompts
from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.ioi.dataset import abc_records
from ioi_fast.ioi.records import sample_records
from ioi_fast.tokenizer import TextCodec

FIRST = {
    "clean": "Then, Mary and John walked to the store. John handed a ring to",
    "corrupt": "Then, Paul and Lisa walked to the store. Sarah handed a ring to",
    "answers": [" Mary"],
    "wrong_answers": [" John"],
}


def load_records(
    folder: Path,
    *records: object,
    prepend_bos: bool = False,
    tokenizer: TextCodec | None = None,
    **content: object,
) -> PromptPairs:
    """Writes records (and word_idxs) to a file and loads it, by default with GPT-2's tokenizer."""
    path = folder / "prompts.json"
    path.write_text(json.dumps({"prompts": list(records), **content}), "utf-8")
    return load_prompts(path, tokenizer or gpt2_tokenizer(), prepend_bos=prepend_bos)


def refused(folder: Path, text: str | bytes, name: str = "prompts.json") -> str:
    """The message of a file's refusal, which names the file and is short."""
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ValueError) as caught:
        load_prompts(path, gpt2_tokenizer())
    message = str(caught.value)
    assert str(path) in message and len(message.encode()) < 2000
    return message


def words_at(pairs: PromptPairs, row: int, *, new: bool = False) -> dict[str, str]:
    """Role -> the word that stands there."""
    tokens, roles = (pairs.new, pairs.new_roles) if new else (pairs.orig, pairs.positions)
    ids = {role: int(tokens[row, at[row]]) for role, at in roles.items()}
    return {role: gpt2_tokenizer().decode([i]) for role, i in ids.items()}


def write_prompts(file: Path, n: int, forms: Sequence[int], seed: int = 3) -> Path:
    """A file of n prompts of these forms, each with its ABC prompt."""
    records = sample_records(n, seed, forms)
    prompts = [
        {
            "clean": one.text,
            "corrupt": other.text,
            "answers": [f" {one.io}"],
            "wrong_answers": [f" {one.s1}"],
        }
        for one, other in zip(records, abc_records(records, seed), strict=True)
    ]
    file.write_text(json.dumps({"prompts": prompts}))
    return file
