"""Where a word stands in a row of tokens, from border to border: not "Ann" in " Annapolis"."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from ioi_fast.model.tokenizer import TextCodec, plain_ids

APOSTROPHES = "'\u2019"
_INSIDE_WORDS = "-\u2010\u2011" + APOSTROPHES  # they join letters on both sides
_INVISIBLE = "\u00ad\u200c\u200d\u2060"  # soft hyphen, joiners
ENDING = r"(?:s|d|m|t|ll|re|ve)(?!\w)"  # what an apostrophe cuts off a name: Mary's, Mary'll
_ENDING = re.compile(ENDING, re.IGNORECASE)

# Tokens that are decoded on either side: enough for the few characters that tell a border, each of
# which may take four tokens of single bytes.
_WINDOW = 12


@dataclass(frozen=True, slots=True)
class Stretch:
    """The tokens start..stop-1, which spell one whole word."""

    start: int
    stop: int


def whole_words(tokenizer: TextCodec, ids: list[int], word: str) -> list[Stretch]:
    """Where a word stands whole, with the space before it or without, in one token or in several.

    Letters, digits and marks go on with a word, as a hyphen or an apostrophe between two of them
    does; an apostrophe with an ending (Mary's) does not.
    """
    word = word.strip()
    if not word:
        return []
    borders = _Borders(tokenizer, ids, word)
    found = {
        (start, start + len(form))
        for form in _forms(tokenizer, word)
        for start in _starts(ids, form)
        if borders.around(start, start + len(form))
    }
    return [Stretch(*ends) for ends in sorted(found)]


def word_goes_on(tokenizer: TextCodec, ids: list[int], border: int) -> bool:
    """Whether the tokens in front of a border and behind it hold parts of one word."""
    near = ids[max(0, border - _WINDOW) : border]
    before = tokenizer.decode(near)
    after = tokenizer.decode([*near, *ids[border : border + _WINDOW]])[len(before) :]
    return _goes_on(before, after) or _goes_back(before, after)


def _forms(tokenizer: TextCodec, word: str) -> set[tuple[int, ...]]:
    """The tokens that spell a word at the start of a text, behind a space and behind a quote."""
    quote, *forms = (plain_ids(tokenizer, text) for text in ('"', word, f" {word}", f'"{word}'))
    if forms[-1][: len(quote)] == quote:
        forms[-1] = forms[-1][len(quote) :]  # not that of a start to which a tokenizer adds a space
    return {tuple(form) for form in forms if form}


def _starts(ids: list[int], form: tuple[int, ...]) -> list[int]:
    first, size = form[0], len(form)
    return [
        at
        for at, token in enumerate(ids)
        if token == first and (size == 1 or tuple(ids[at : at + size]) == form)
    ]


class _Borders:
    """Tells whether a word ends where its tokens do; what stands around it is decoded once."""

    def __init__(self, tokenizer: TextCodec, ids: list[int], word: str) -> None:
        self.tokenizer, self.ids, self.word = tokenizer, ids, word
        self._known: dict[tuple[tuple[int, ...], tuple[int, ...]], bool] = {}

    def around(self, start: int, stop: int) -> bool:
        """Whether neither side of tokens start..stop-1 goes on with the word."""
        behind = tuple(self.ids[max(0, start - _WINDOW) : stop])
        ahead = tuple(self.ids[stop : stop + _WINDOW])
        if (behind, ahead) not in self._known:
            # Decoded together with its neighbours: some tokenizers drop a space that begins a text.
            until = self.tokenizer.decode(list(behind))
            after = self.tokenizer.decode([*behind, *ahead])[len(until) :]
            before = until[: len(until) - len(self.word)]
            joined = _goes_on(self.word, after) or _goes_back(before, self.word)
            self._known[behind, ahead] = not joined
        return self._known[behind, ahead]


def _goes_on(word: str, after: str) -> bool:
    if not after or not _in_words(word[-1:]):
        return False
    if after[0] in APOSTROPHES and _ENDING.match(after, 1):
        return False
    return _in_words(after[0]) or (after[0] in _INSIDE_WORDS and _in_words(after[1:2]))


def _goes_back(before: str, word: str) -> bool:
    if not before or not _in_words(word[:1]):
        return False
    return _in_words(before[-1]) or (before[-1] in _INSIDE_WORDS and _in_words(before[-2:-1]))


def _in_words(character: str) -> bool:
    """Whether a character is part of a word; False for none."""
    if not character:
        return False
    return (
        character.isalnum()
        or character == "_"
        or character in _INVISIBLE
        or unicodedata.category(character).startswith("M")
    )
