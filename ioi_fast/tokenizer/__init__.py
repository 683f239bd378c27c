"""Text to ids and back: our own tokenizer, and what prompts ask of any."""

from __future__ import annotations

from ioi_fast.tokenizer.bos_and_padding import bos_id, padding_id, with_bos
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
    "check_codec",
    "padding_id",
    "plain_ids",
    "single_token",
    "with_bos",
]
