"""Text to ids and back: our own tokenizer, and what prompts ask of any."""

from __future__ import annotations

from ioi_fast.tokenizer.codecs import (
    TextCodec,
    Tokenizer,
    bos_id,
    check_codec,
    padding_id,
    plain_ids,
    single_token,
    with_bos,
)

__all__ = [
    "TextCodec",
    "Tokenizer",
    "bos_id",
    "check_codec",
    "padding_id",
    "plain_ids",
    "single_token",
    "with_bos",
]
