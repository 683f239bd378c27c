"""Text to ids and back: our own tokenizer, and what prompts ask of any.

A tokenizer here is anything with `encode(str) -> list[int]` and `decode(list[int]) -> str`;
`Tokenizer` is ours, read from a checkpoint's folder or from GPT-2's two original files.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, signature
from pathlib import Path
from typing import Protocol

import tokenizers

from ioi_fast.tokenizer.backend import check_text, library_errors, settled
from ioi_fast.tokenizer.files import read_folder, read_gpt2_files


class TextCodec(Protocol):
    """What prompts need of a tokenizer; `transformers.GPT2Tokenizer` fits as well."""

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: list[int]) -> str: ...


class Tokenizer:
    """A `tokenizers.Tokenizer` with the four things that this project asks of one.

    `bos` and `eos` are the tokens that begin and end a text, None where there is none. Truncation,
    padding and dropout of the backend are not used; no token is ever added to a text.

    Raises TypeError for another backend, ValueError for a token that is not in the vocabulary.

    Example:
        >>> Tokenizer.from_directory("my-gpt2").encode(" Mary")
        [5335]
    """

    def __init__(
        self, backend: tokenizers.Tokenizer, bos: str | None = None, eos: str | None = None
    ) -> None:
        if not isinstance(backend, tokenizers.Tokenizer):
            raise TypeError(f"backend must be a tokenizers.Tokenizer, got {type(backend).__name__}")
        self.backend = settled(backend)
        self.bos_id = self._id("bos", bos)
        self.eos_id = self._id("eos", eos)

    @classmethod
    def from_directory(cls, path: str | Path) -> Tokenizer | None:
        """The tokenizer of a checkpoint's folder, as transformers reads it; None without one.

        Read are tokenizer.json, or vocab.json with merges.txt, and tokenizer_config.json,
        special_tokens_map.json and added_tokens.json beside them. BOS and EOS are those of the
        settings, without settings `<|endoftext|>` where the vocabulary has it, as in GPT-2.

        Raises ValueError naming the file that cannot be read, or a form of tokenizer that is not
        read here (SentencePiece, WordPiece, code of its own), and what to do then.
        """
        found = read_folder(Path(path))
        return None if found is None else cls(*found)

    @classmethod
    def from_gpt2_files(cls, encoder_json: str | Path, merges: str | Path) -> Tokenizer:
        """Build from GPT-2's two files, vocabulary (token -> id) and ranked merges.

        Raises ValueError naming the file.
        """
        return cls(*read_gpt2_files(Path(encoder_json), Path(merges)))

    def encode(self, text: str) -> list[int]:
        """Ids of a text; no token is added in front or behind.

        Raises TypeError for what is no text, ValueError for one that is not Unicode.
        """
        if not isinstance(text, str):
            raise TypeError(f"text must be a str, got {type(text).__name__}")
        check_text(text)
        with library_errors("text cannot be tokenized"):
            return self.backend.encode(text, add_special_tokens=False).ids

    def decode(self, ids: list[int]) -> str:
        """The text of some ids, special tokens included; ids may be any sequence of integers."""
        plain = [int(i) for i in ids]
        for i in plain:
            if not 0 <= i < 2**32 or self.backend.id_to_token(i) is None:
                raise ValueError(f"ids: {i} is out of range, the vocabulary has {self.vocab_size}")
        with library_errors("ids cannot be decoded"):
            return self.backend.decode(plain, skip_special_tokens=False)

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        return self.backend.get_vocab_size(with_added_tokens=True)

    def _id(self, name: str, token: str | None) -> int | None:
        index = None if token is None else self.backend.token_to_id(token)
        if token is not None and index is None:
            raise ValueError(f"{name}: {token!r:.80} is not in the vocabulary")
        return index

    def __repr__(self) -> str:
        return f"Tokenizer(vocab_size={self.vocab_size})"


def check_codec(tokenizer: TextCodec) -> None:
    """Raise TypeError unless the argument has callable `encode` and `decode` of texts and ids.

    Raises ValueError for a BPE that leaves merges out at random.
    """
    if isinstance(tokenizer, tokenizers.Tokenizer):
        raise TypeError(
            "tokenizer must give lists of ids, got a tokenizers.Tokenizer: wrap it, "
            "ioi_fast.tokenizer.Tokenizer(backend, bos=…)"
        )
    for method in ("encode", "decode"):
        if not callable(getattr(tokenizer, method, None)):
            raise TypeError(
                f"tokenizer must have encode and decode, {type(tokenizer).__name__} has no {method}"
                + (" (this model has no tokenizer)" if tokenizer is None else "")
            )
    model = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
    if getattr(model, "dropout", None):
        raise ValueError(
            f"tokenizer: its BPE leaves out merges at random (dropout {model.dropout}), so ids "
            "would differ from call to call: set tokenizer.backend_tokenizer.model.dropout = None"
        )


def plain_ids(tokenizer: TextCodec, text: str) -> list[int]:
    """Ids of a text alone: no token in front or behind, whatever the tokenizer adds by itself."""
    check_text(text)
    alone = {"add_special_tokens": False} if _takes_add_special_tokens(tokenizer.encode) else {}
    with library_errors(f"tokenizer: {type(tokenizer).__name__} cannot encode {text!r:.80}"):
        return [int(i) for i in tokenizer.encode(text, **alone)]


def _takes_add_special_tokens(function: Callable) -> bool:
    """Whether a method has this argument, or hands on any by name, as wrappers do."""
    try:
        found = signature(function).parameters
    except (TypeError, ValueError):  # a function of C without a signature
        return False
    any_name = any(parameter.kind is Parameter.VAR_KEYWORD for parameter in found.values())
    return any_name or "add_special_tokens" in found
