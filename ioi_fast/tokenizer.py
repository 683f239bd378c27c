"""GPT-2's byte-level BPE, read from a checkpoint directory or from the two original files.

A tokenizer here is anything with `encode(str) -> list[int]` and `decode(list[int]) -> str`;
`Tokenizer` is ours. The id of `<|endoftext|>` serves as BOS, EOS and padding, as in GPT-2.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from inspect import signature
from pathlib import Path
from typing import Protocol

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

END_OF_TEXT = "<|endoftext|>"


class TextCodec(Protocol):
    """What prompts need of a tokenizer; `transformers.GPT2Tokenizer` fits as well."""

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: list[int]) -> str: ...


class Tokenizer:
    """A `tokenizers.Tokenizer` with the four things that this project asks of one.

    Example:
        >>> Tokenizer.from_directory("my-gpt2").encode(" Mary")
        [5335]
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        if not isinstance(backend, tokenizers.Tokenizer):
            raise TypeError(f"backend must be a tokenizers.Tokenizer, got {type(backend).__name__}")
        self.backend = backend

    @classmethod
    def from_directory(cls, path: str | Path) -> Tokenizer | None:
        """Read tokenizer.json, else vocab.json with merges.txt; None when there is neither.

        Raises ValueError naming the file when it cannot be read as a tokenizer.
        """
        directory = Path(path)
        whole, vocabulary, merges = (
            directory / name for name in ("tokenizer.json", "vocab.json", "merges.txt")
        )
        if whole.is_file():
            try:
                return cls(tokenizers.Tokenizer.from_file(str(whole)))
            except Exception as error:  # the library raises bare Exception
                raise ValueError(f"{whole} is not a tokenizer file: {error}") from error
        if vocabulary.is_file() and merges.is_file():
            return cls.from_gpt2_files(vocabulary, merges)
        return None

    @classmethod
    def from_gpt2_files(cls, encoder_json: str | Path, merges: str | Path) -> Tokenizer:
        """Build from GPT-2's two files, vocabulary (token -> id) and ranked merges."""
        try:
            bpe = models.BPE.from_file(str(encoder_json), str(merges))
        except Exception as error:  # the library raises bare Exception
            raise ValueError(f"{encoder_json} and {merges} are not a BPE: {error}") from error
        return cls(byte_level(bpe))

    def encode(self, text: str) -> list[int]:
        """Ids of a text; no token is added in front or behind."""
        if not isinstance(text, str):
            raise TypeError(f"text must be a str, got {type(text).__name__}")
        return self.backend.encode(text, add_special_tokens=False).ids

    def decode(self, ids: list[int]) -> str:
        """The text of some ids, `<|endoftext|>` included; ids may be any sequence of integers."""
        plain = [int(i) for i in ids]
        for i in plain:
            if not 0 <= i < self.vocab_size:
                raise ValueError(f"ids: {i} is out of range, the vocabulary has {self.vocab_size}")
        return self.backend.decode(plain, skip_special_tokens=False)

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        return self.backend.get_vocab_size(with_added_tokens=True)

    @property
    def bos_id(self) -> int | None:
        """Id of the token that begins a text, None where there is none."""
        return self.backend.token_to_id(END_OF_TEXT)

    @property
    def eos_id(self) -> int | None:
        """Id of the token that ends a text, None where there is none."""
        return self.backend.token_to_id(END_OF_TEXT)

    def __repr__(self) -> str:
        return f"Tokenizer(vocab_size={self.vocab_size})"


def byte_level(bpe: models.BPE) -> tokenizers.Tokenizer:
    """GPT-2's pipeline around a BPE: no normaliser, the byte-level pre-tokenizer and decoder."""
    backend = tokenizers.Tokenizer(bpe)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([END_OF_TEXT])
    return backend


def check_codec(tokenizer: TextCodec) -> None:
    """Raise TypeError unless the argument has callable `encode` and `decode`."""
    for method in ("encode", "decode"):
        if not callable(getattr(tokenizer, method, None)):
            raise TypeError(
                f"tokenizer must have encode and decode, {type(tokenizer).__name__} has no {method}"
                + (" (this model has no tokenizer)" if tokenizer is None else "")
            )


def plain_ids(tokenizer: TextCodec, text: str) -> list[int]:
    """Ids of a text alone: no token in front or behind, whatever the tokenizer adds by itself."""
    if "add_special_tokens" in _parameters(tokenizer.encode):
        return list(tokenizer.encode(text, add_special_tokens=False))
    return list(tokenizer.encode(text))


def _parameters(function: Callable) -> Collection[str]:
    try:
        return signature(function).parameters
    except (TypeError, ValueError):  # a function of C without a signature
        return ()


def bos_id(tokenizer: TextCodec) -> int:
    """Id of the token that begins a text: `bos_id`, else transformers' `bos_token_id`.

    Raises ValueError where the tokenizer has none: no token is taken in its place.
    """
    for attribute in ("bos_id", "bos_token_id"):
        found = getattr(tokenizer, attribute, None)
        if found is not None:
            return int(found)
    raise ValueError(f"prepend_bos: the tokenizer {type(tokenizer).__name__} has no BOS token")


def padding_id(tokenizer: TextCodec) -> int:
    """Id that fills rows behind END, where it changes nothing: EOS if there is one, else 0."""
    for attribute in ("eos_id", "eos_token_id"):
        found = getattr(tokenizer, attribute, None)
        if found is not None:
            return int(found)
    return 0


def with_bos(ids: list[int], bos: int) -> list[int]:
    """Ids behind one BOS; those that begin with it already are left as they are."""
    return ids if ids[:1] == [bos] else [bos, *ids]


def single_token(tokenizer: TextCodec, word: str, what: str) -> int:
    """Id of a word that must be one token; ValueError names the word and the pieces it falls into.

    `what` says what the word is for, with its argument's name: "names: the name".
    """
    ids = plain_ids(tokenizer, word)
    if len(ids) != 1:
        pieces = [tokenizer.decode([i]) for i in ids]
        raise ValueError(f"{what} {word!r} must be a single token, got {len(ids)}: {pieces}")
    return int(ids[0])
