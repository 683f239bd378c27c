"""Words that must be one token: answers, names, places."""

from __future__ import annotations

from ioi_fast.tokenizer.codecs import TextCodec, plain_ids


def single_token(tokenizer: TextCodec, word: str, what: str) -> int:
    """Id of a word that must be one token; ValueError names the word and the pieces it falls into.

    `what` says what the word is for, with its argument's name: "names: the name".
    """
    ids = plain_ids(tokenizer, word)
    if len(ids) != 1:
        pieces = [tokenizer.decode([i]) for i in ids]
        raise ValueError(f"{what} {word!r} must be a single token, got {len(ids)}: {pieces}")
    return int(ids[0])
