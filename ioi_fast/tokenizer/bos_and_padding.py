"""The token that begins a text, and the one that fills rows behind it: a tokenizer's own."""

from __future__ import annotations

import tokenizers

from ioi_fast.outside.whole_numbers import whole_number
from ioi_fast.tokenizer.codecs import TextCodec


def bos_id(tokenizer: TextCodec) -> int:
    """Id of the token that begins a text: `bos_id`, else transformers' `bos_token_id`.

    Raises ValueError where the tokenizer has none: no token is taken in its place.
    """
    kind, token = type(tokenizer).__name__, getattr(tokenizer, "bos_token", None)
    found = _token_id(tokenizer, "bos")
    if isinstance(token, str) and not _stands_for(tokenizer, found, token):
        raise ValueError(
            f"prepend_bos: the vocabulary of the tokenizer {kind} lacks its bos_token {token!r:.80}"
        )
    if found is None:
        raise ValueError(
            f"prepend_bos: the tokenizer {kind} has no BOS token (its settings name none that its "
            "vocabulary has)"
        )
    return found


def padding_id(tokenizer: TextCodec) -> int:
    """Id that fills rows behind END, where it changes nothing: EOS, else 0, which all models have.

    An EOS that was put behind the vocabulary is not taken: the model may have no row for it.
    """
    backend = getattr(tokenizer, "backend", None)
    if isinstance(backend, tokenizers.Tokenizer):
        size = backend.get_vocab_size(with_added_tokens=False)
    else:
        size = whole_number(getattr(tokenizer, "vocab_size", None))
    found = _token_id(tokenizer, "eos")
    return 0 if found is None or (size is not None and found >= size) else found


def _token_id(tokenizer: TextCodec, name: str) -> int | None:
    """`bos_id` or `bos_token_id`, a number or a method that gives one; negative means none."""
    for attribute in (f"{name}_id", f"{name}_token_id"):
        found = getattr(tokenizer, attribute, None)
        index = whole_number(found() if callable(found) else found)
        if index is not None and index >= 0:
            return index
    return None


def _stands_for(tokenizer: TextCodec, index: int | None, token: str) -> bool:
    """Whether an id is a token's own; transformers gives that of unk_token to unknown ones."""
    name_of = getattr(tokenizer, "convert_ids_to_tokens", None)
    return index is not None and (not callable(name_of) or name_of(index) == token)


def bos_if_any(tokenizer: TextCodec, needed: bool) -> int | None:
    """The id of BOS, None where the tokenizer has none and none is needed."""
    try:
        return bos_id(tokenizer)
    except ValueError:
        if needed:
            raise
        return None


def in_front(bos: int | None, asked: bool, written: bool = False) -> list[int]:
    """What stands in front of a prompt: one BOS, where it is asked for or written in the text."""
    return [bos] if bos is not None and (asked or written) else []
