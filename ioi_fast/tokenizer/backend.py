"""The tokenizers library behind checks: pipelines that give the same ids each time, errors by name.

A backend that leaves here neither cuts, pads nor adds anything, and draws nothing at random.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from ioi_fast.outside.quoting import cut

# Characters that the replacements of a tokenizer.json may make of one, all together.
_MOST_GROWTH = 10_000


@contextmanager
def library_errors(where: str) -> Iterator[None]:
    """Turn whatever the library raises into a ValueError that begins with `where`.

    It raises bare Exception, and PanicException, which is no Exception at all.
    """
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"{where}: {cut(error, 300)}") from error


def byte_level(bpe: models.BPE, add_prefix_space: bool = False) -> tokenizers.Tokenizer:
    """GPT-2's pipeline around a BPE: no normaliser, the byte-level pre-tokenizer and decoder."""
    backend = tokenizers.Tokenizer(bpe)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    backend.decoder = decoders.ByteLevel()
    return backend


def as_written(content: dict[str, Any], where: str) -> tokenizers.Tokenizer:
    """The pipeline that the content of a tokenizer.json describes.

    Truncation, padding, added BOS and dropout are left out. Raises ValueError beginning with
    `where`.
    """
    off = {"truncation": None, "padding": None, "post_processor": None}
    content = {**content, **off}
    model = content.get("model")
    if isinstance(model, dict) and "dropout" in model:
        content["model"] = {**model, "dropout": None}
    _check_growth(content, where)
    _check_prefix(model, where)
    with library_errors(f"{where} is not a tokenizer file"):
        return tokenizers.Tokenizer.from_str(json.dumps(content))


def settled(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """This backend, or a copy of it without the truncation, padding or dropout that it has."""
    dropout = getattr(backend.model, "dropout", None)
    if backend.truncation is None and backend.padding is None and not dropout:
        return backend
    backend = copy.deepcopy(backend)
    backend.no_truncation()
    backend.no_padding()
    if dropout:
        backend.model.dropout = None
    return backend


def check_text(text: str) -> None:
    """Raise ValueError for a text that is not Unicode: UTF-16 cut in two, as JSON can hold it."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"text must be Unicode, got the lone surrogate {text[error.start]!r} at character "
            f"{error.start}"
        ) from None


def _check_growth(content: dict[str, Any], where: str) -> None:
    """Refuse replacements that, one after the other, turn a short text into gigabytes."""
    growth, found = 1, [content.get(part) for part in ("normalizer", "pre_tokenizer", "decoder")]
    while found:
        part = found.pop()
        if isinstance(part, list):
            found += part
        elif isinstance(part, dict):
            if part.get("type") == "Replace" and isinstance(part.get("content"), str):
                growth *= max(1, len(part["content"]))
            found += [value for value in part.values() if isinstance(value, (dict, list))]
        if growth > _MOST_GROWTH:
            raise ValueError(
                f"{where}: its replacements can make more than {_MOST_GROWTH} characters of one"
            )


def _check_prefix(model: object, where: str) -> None:
    """Refuse a BPE whose merges lack its prefix: the library cuts it off and ends the process."""
    prefix = model.get("continuing_subword_prefix") if isinstance(model, dict) else None
    if not prefix or not isinstance(prefix, str):
        return
    merges = model.get("merges")
    for i, merge in enumerate(merges if isinstance(merges, list) else []):
        right = merge.split(" ") if isinstance(merge, str) else merge
        right = right[-1] if isinstance(right, list) and right else None
        if not isinstance(right, str) or not right.startswith(prefix):
            raise ValueError(
                f"{where}: merges[{i}] must have a second part that begins with "
                f"continuing_subword_prefix {prefix!r:.80}, got {merge!r:.80}"
            )
