"""The bundled tokenizer: GPT-2's BPE pruned to the words of the training texts.

A merge is kept if GPT-2 applies it while encoding one of the listed words, bare or with a leading
space. Segmentation of those words is then GPT-2's own: at every step the best pair of the full list
is, by construction, in the kept list. Other text still round-trips, in finer pieces than GPT-2's.
"""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

from tokenizers import models, pre_tokenizers

from ioi_fast.demo import sentences
from ioi_fast.ioi.templates import INSERTIONS, TEMPLATES
from ioi_fast.ioi.words import NAMES, OBJECTS, PLACES
from ioi_fast.tokenizer import Tokenizer
from ioi_fast.tokenizer.backend import byte_level
from ioi_fast.tokenizer.files import END_OF_TEXT

# Words, single marks and the possessive, as GPT-2's pre-tokenizer cuts them.
_WORD = re.compile(r"'s|[A-Za-z]+|[^\sA-Za-z]")


def training_texts() -> list[str]:
    """Every text of the training data and of the derived prompts, slots open."""
    texts = [template.text(long=long) for template in TEMPLATES for long in (False, True)]
    texts += [*INSERTIONS, *sentences.PLAIN, *sentences.SHAPES]
    texts += [*sentences.CLAUSES, *sentences.HANDS]
    texts += [text for texts in sentences.CHOICES.values() for text in texts]
    for opener, joins in sentences.OPENERS:
        texts += [opener, *joins]
    return texts


def words() -> list[str]:
    """The vocabulary in words and punctuation marks, sorted, without duplicates."""
    bare = (re.sub(r"\{\w+\}", " ", text) for text in training_texts())
    found = {word for text in bare for word in _WORD.findall(text)}
    return sorted(found | set(NAMES) | set(PLACES) | set(OBJECTS))


def prune(encoder_json: str | Path, merges_file: str | Path) -> Tokenizer:
    """The tokenizer of `words()` from GPT-2's encoder.json and ranked merges.

    Ids keep GPT-2's order: 256 bytes, then the kept merges by rank; <|endoftext|> comes last.
    """
    encoder: dict[str, int] = json.loads(Path(encoder_json).read_text(encoding="utf-8"))
    lines = Path(merges_file).read_text(encoding="utf-8").splitlines()
    ranked = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    ranks = {pair: rank for rank, pair in enumerate(ranked)}
    split = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str
    pieces = {piece for word in words() for text in (word, f" {word}") for piece, _ in split(text)}
    kept = {pair for piece in pieces for pair in _merges(piece, ranks)}
    merges = sorted(kept, key=ranks.__getitem__)
    tokens = {left + right for left, right in merges}
    tokens |= {token for token in encoder if len(token) == 1}
    ordered = sorted(tokens, key=encoder.__getitem__)
    ids = {token: i for i, token in enumerate([*ordered, END_OF_TEXT])}
    backend = byte_level(models.BPE(vocab=ids, merges=merges))
    backend.add_special_tokens([END_OF_TEXT])
    return Tokenizer(backend, bos=END_OF_TEXT, eos=END_OF_TEXT)


def _merges(piece: str, ranks: dict[tuple[str, str], int]) -> list[tuple[str, str]]:
    """The merges that byte-pair encoding applies to one pre-token, in order."""
    parts, applied = list(piece), []
    while len(parts) > 1:
        pairs = list(pairwise(parts))
        best = min(pairs, key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            break
        applied.append(best)
        at = pairs.index(best)
        # One place at a time is enough: the same pair is found again while it has the best rank.
        parts[at : at + 2] = ["".join(best)]
    return applied


def write_tokenizer(
    directory: str | Path, encoder_json: str | Path, merges: str | Path
) -> Tokenizer:
    """Write tokenizer.json and tokenizer_config.json as transformers reads them; the tokenizer."""
    tokenizer = prune(encoder_json, merges)
    target = Path(directory)
    tokenizer.backend.save(str(target / "tokenizer.json"))
    config = {
        "add_prefix_space": False,
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "unk_token": END_OF_TEXT,
        "tokenizer_class": "GPT2Tokenizer",
    }
    (target / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    return tokenizer
