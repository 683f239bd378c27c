"""Text to ids and back: our own tokenizer, and what prompts ask of any."""

from __future__ import annotations

from ioi_fast.tokenizer.bos_and_padding import bos_id, bos_if_any, in_front, padding_id
from ioi_fast.tokenizer.codecs import (
    TextCodec,
    Tokenizer,
    check_codec,
    plain_ids,
)
from ioi_fast.tokenizer.single_tokens import single_token

__all__ = [
    "TextCodec",
    "Tokenizer",
    "bos_id",
    "bos_if_any",
    "check_codec",
    "in_front",
    "padding_id",
    "plain_ids",
    "single_token",
]
