"""Folders of a GPT-2's tokenizer in every form, around GPT-2's first 600 merges; drawn ones too."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import tokenizers
from gpt2_files import gpt2_files
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

TEXTS = [
    "",
    " ",
    "When Mary and John went",
    "  two  spaces, a tab\tand\nnew lines\n\n ",
    " trailing ",
    "naïve — “quotes” 日本語 🙂👩‍👩‍👧",
    "combining e\u0301 and é, \u202eright to left",
    "<|endoftext|>a <|endoftext|> b<|endoftext|>",
    "  <s>  both <s></s> <pad>\n<pad> <S>",
    "[Space]x [Space] y  Zorb Zorbs ZorbZorb <|startoftext|>",
]
WORDS = ["<s>", "</s>", "<pad>", "[Space]", " Zorb", "Zorb", "<|startoftext|>", "the", " t"]
FLAGS = ("lstrip", "rstrip", "single_word", "normalized", "special")
END_OF_TEXT = "<|endoftext|>"


@functools.cache
def merges() -> list[str]:
    lines = gpt2_files()[1].read_text("utf-8").split("\n")
    return [line for line in lines if line and not line.startswith("#version")][:600]


def vocabulary(*more: str) -> dict[str, int]:
    """The bytes, what the merges make of them, and more tokens."""
    known = json.loads(gpt2_files()[0].read_text("utf-8"))
    made = ["".join(merge.split(" ")) for merge in merges()]
    return {t: i for i, t in enumerate([*(t for t in known if len(t) == 1), *made, *more])}


def pipeline(ids: dict[str, int], **how: Any) -> tokenizers.Tokenizer:
    """The same as a tokenizers.Tokenizer."""
    pairs = [tuple(merge.split(" ")) for merge in merges()]
    backend = tokenizers.Tokenizer(models.BPE(vocab=ids, merges=pairs, **how))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return backend


def write_folder(
    directory: Path,
    ids: dict[str, int] | None = None,
    whole: tokenizers.Tokenizer | None = None,
    slow: bool = True,
    **files: Any,
) -> Path:
    """A folder with vocab.json and merges.txt (slow), tokenizer.json (whole) and JSON files."""
    directory.mkdir(exist_ok=True)
    if whole is not None:
        whole.save(str(directory / "tokenizer.json"))
    if slow:
        content = vocabulary(END_OF_TEXT) if ids is None else ids
        (directory / "vocab.json").write_text(json.dumps(content), "utf-8")
        (directory / "merges.txt").write_text("\n".join(["#version: 0.2", *merges(), ""]), "utf-8")
    for name, content in {"config": {"model_type": "gpt2"}, **files}.items():
        (directory / f"{name}.json").write_text(json.dumps(content), "utf-8")
    return directory


def numbered(ids: dict[str, int], tokens: list[str]) -> dict[str, int]:
    """Tokens with the ids that they have, or that come next."""
    new = iter(range(len(ids), len(ids) + len(tokens)))
    return {token: ids[token] if token in ids else next(new) for token in tokens}


def flagged() -> st.SearchStrategy[dict[str, bool]]:
    return st.fixed_dictionaries({}, optional=dict.fromkeys(FLAGS, st.booleans()))


def token_objects() -> st.SearchStrategy[dict[str, Any]]:
    word = st.sampled_from([*WORDS, END_OF_TEXT])
    return st.builds(lambda content, flags: {"content": content, **flags}, word, flagged())


@st.composite
def drawn_files(draw: st.DrawFn) -> dict[str, Any]:
    """Arguments of `write_folder`: a slow or a fast folder with settings that hang together."""
    ids = vocabulary(*draw(st.sampled_from([(), (END_OF_TEXT,), (END_OF_TEXT, "<s>"), ("<s>",)])))
    fast = draw(st.booleans())
    classes = [None, "GPT2Tokenizer", "GPT2TokenizerFast", *["PreTrainedTokenizerFast"] * fast]
    named = st.one_of(
        st.none(),
        st.sampled_from([*WORDS, END_OF_TEXT]),
        token_objects().map(lambda token: {**token, "__type": "AddedToken"}),
    )
    keys = ("bos_token", "eos_token", "unk_token", "pad_token", "cls_token")
    flags = ("add_prefix_space", "add_bos_token", "split_special_tokens")
    words = st.lists(st.sampled_from(WORDS), unique=True, max_size=3)
    optional = {**dict.fromkeys(keys, named), **dict.fromkeys(flags, st.booleans())}
    optional |= {"additional_special_tokens": words, "own_token": st.sampled_from(WORDS)}
    settings = draw(st.fixed_dictionaries({}, optional=optional))
    settings["tokenizer_class"] = draw(st.sampled_from(classes))
    files: dict[str, Any] = {"tokenizer_config": settings}
    if not fast and draw(st.booleans()):
        files["added_tokens"] = numbered(ids, draw(words))
    elif not fast and draw(st.booleans()):
        listed = numbered(ids, draw(words))
        entries = {str(i): {"content": t, **draw(flagged())} for t, i in listed.items()}
        settings["added_tokens_decoder"] = entries
    if draw(st.booleans()):
        pairs = st.one_of(st.sampled_from(WORDS), token_objects())
        optional = dict.fromkeys(("bos_token", "eos_token", "pad_token"), pairs)
        files["special_tokens_map"] = draw(st.fixed_dictionaries({}, optional=optional))
    begins = [file.get("bos_token") for file in files.values()]
    if any(" " in (b["content"] if isinstance(b, dict) else b or "") for b in begins):
        settings.pop("add_bos_token", None)  # transformers itself fails on the two together
    return {"ids": ids, "slow": not fast, "whole": _whole(draw, ids) if fast else None, **files}


def _whole(draw: st.DrawFn, ids: dict[str, int]) -> tokenizers.Tokenizer:
    backend = pipeline(ids)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=draw(st.booleans()))
    if draw(st.booleans()):
        backend.normalizer = normalizers.NFC()
    for entry in draw(st.lists(token_objects(), max_size=3)):
        backend.add_tokens([AddedToken(**entry)])
    if draw(st.booleans()):
        backend.enable_truncation(2)
    if draw(st.booleans()):
        backend.enable_padding(length=7)
    if draw(st.booleans()):
        front = ("!", 0)
        backend.post_processor = processors.TemplateProcessing(
            single="! $A", special_tokens=[front]
        )
    return backend
