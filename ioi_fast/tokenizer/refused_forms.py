"""Forms of tokenizers that are not read here: how they are told, and what to do about them.

A form is told by a vocabulary's file, by a key of the settings, or by the class that they name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

# Vocabularies by the names that their files have.
_WORD_PIECE = "vocab.txt"
UNREAD = {
    "*.model": "a SentencePiece or tiktoken model",
    "*.tiktoken": "a tiktoken vocabulary",
    "tekken.json": "a Tekken vocabulary",
    _WORD_PIECE: "a WordPiece vocabulary",
    "encoder.json": "a vocabulary under a name that transformers does not read, either",
}
# Settings that no vocabulary file of the folder answers for.
_SETTINGS = {
    "auto_map": "it runs code of its own",
    "fast_tokenizer_files": "it has a tokenizer.json for each version of transformers",
    "gguf_file": "its vocabulary lies in a file of weights",
    "init_inputs": "its vocabulary is given in the settings",
    "merges": "its vocabulary is given in the settings",
    "tokenizer_object": "its vocabulary is given in the settings",
    "vocab": "its vocabulary is given in the settings",
}
_INSTEAD = (
    "load it with transformers as t, write PreTrainedTokenizerFast(tokenizer_object="
    "t.backend_tokenizer, bos_token=t.bos_token, eos_token=t.eos_token).save_pretrained(folder), "
    "and load that folder; or give t itself to the calls that take a tokenizer"
)


class WordPieceTokenizer(ValueError):
    """The folder has BERT's kind of tokenizer, as GPT-2s for Chinese do; it is not read here."""


def check_vocabularies(directory: Path) -> None:
    """Raise ValueError where a folder has a vocabulary, but none that is read here."""
    for pattern, form in UNREAD.items():
        for path in sorted(directory.glob(pattern)):
            kind = WordPieceTokenizer if pattern == _WORD_PIECE else ValueError
            raise kind(f"{path} is {form}, which is not read here: {_INSTEAD}")


def check_settings(config: Mapping[str, Any], where: str) -> None:
    """Raise ValueError, beginning with `where`, for settings that no vocabulary answers for."""
    for key, reason in _SETTINGS.items():
        value = config.get(key)
        if key == "auto_map" and isinstance(value, dict):
            value = value.get("AutoTokenizer")
        if value not in (None, [], {}, "", ["tokenizer.json"]):
            raise ValueError(f"{where}: {key}: this tokenizer is not read here, since {reason}")


def refuse_class(directory: Path, name: str, whole: Mapping[str, Any] | None) -> NoReturn:
    """Raise ValueError for a tokenizer_class that is not read; `whole` as in `read_settings`."""
    word_piece = whole is None and (directory / _WORD_PIECE).is_file()
    kind = WordPieceTokenizer if word_piece else ValueError
    raise kind(f"{directory}: tokenizer_class {name[:80]!r} is not read here: {_INSTEAD}")
