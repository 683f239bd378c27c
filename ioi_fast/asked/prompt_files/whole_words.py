"""Where a word stands in a row of tokens, from border to border: not "Ann" in " Annapolis"."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from ioi_fast.tokenizer import TextCodec, plain_ids

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


def whole_words(
    tokenizer: TextCodec, ids: list[int], word: str, text: str | None = None
) -> list[Stretch]:
    """Where a word stands whole, with the space before it or without, in one token or in several.

    Letters, digits and marks go on with a word, as a hyphen or an apostrophe between two of them
    does; an apostrophe with an ending (Mary's) does not. text is what was tokenized, which tells
    a space that a token of its own has taken along.
    """
    word = word.strip()
    if not word:
        return []
    borders = _Borders(tokenizer, ids, text if _takes_spaces(tokenizer, word) else None)
    found: set[tuple[int, int]] = set()
    for form, spelt in _forms(tokenizer, word).items():
        ends = ((start, start + len(form)) for start in _starts(ids, form))
        found.update(two for two in ends if borders.around(*two, spelt))
    return [Stretch(*ends) for ends in sorted(found)]


def word_goes_on(tokenizer: TextCodec, ids: list[int], border: int) -> bool:
    """Whether the tokens in front of a border and behind it hold parts of one word."""
    near = ids[max(0, border - _WINDOW) : border]
    before = tokenizer.decode(near)
    after = tokenizer.decode([*near, *ids[border : border + _WINDOW]])[len(before) :]
    return _goes_on(before, after) or _goes_back(before, after)


def _forms(tokenizer: TextCodec, word: str) -> dict[tuple[int, ...], str]:
    """The tokens that spell a word at the start of a text, behind a space and behind a quote, and
    what they are decoded to: a tokenizer may write a word in another way."""
    quote, *forms = (plain_ids(tokenizer, text) for text in ('"', word, f" {word}", f'"{word}'))
    if forms[-1][: len(quote)] == quote:
        forms[-1] = forms[-1][len(quote) :]  # not that of a start to which a tokenizer adds a space
    found = {}
    for form in forms:
        # A word that was added to the vocabulary leaves the space to a token of its own.
        while len(form) > 1 and tokenizer.decode(form[:1]).isspace():
            form = form[1:]
        if form:
            found[tuple(form)] = tokenizer.decode(form).strip()
    return found


def _takes_spaces(tokenizer: TextCodec, word: str) -> bool:
    """Whether a word's token stands for spaces beside it that it is not decoded to, as an added
    token with lstrip or rstrip does."""
    around = tokenizer.decode(plain_ids(tokenizer, f"a {word} a"))
    return around.count(" ") < word.count(" ") + 2


def _starts(ids: list[int], form: tuple[int, ...]) -> list[int]:
    first, size = form[0], len(form)
    return [
        at
        for at, token in enumerate(ids)
        if token == first and (size == 1 or tuple(ids[at : at + size]) == form)
    ]


class _Borders:
    """Tells whether a word ends where its tokens do; what stands around it is decoded once."""

    def __init__(self, tokenizer: TextCodec, ids: list[int], text: str | None) -> None:
        self.tokenizer, self.ids, self.text = tokenizer, ids, text
        self._known: dict[tuple[tuple[int, ...], tuple[int, ...], str], bool] = {}

    def around(self, start: int, stop: int, word: str) -> bool:
        """Whether neither side of tokens start..stop-1, decoded to word, goes on with the word."""
        behind = tuple(self.ids[max(0, start - _WINDOW) : stop])
        ahead = tuple(self.ids[stop : stop + _WINDOW])
        key = (behind, ahead, word)
        if key not in self._known:
            # Decoded together with its neighbours: some tokenizers drop a space that begins a text.
            until = self.tokenizer.decode(list(behind))
            after = self.tokenizer.decode([*behind, *ahead])[len(until) :]
            before = until[: len(until) - len(word)]
            self._known[key] = not (
                (_goes_on(word, after) and self._stands(word + after[:2]))
                or (_goes_back(before, word) and self._stands(before[-2:] + word))
            )
        return self._known[key]

    def _stands(self, joined: str) -> bool:
        """Whether the text has this too, where there is a text to be asked."""
        return self.text is None or joined in self.text


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
