"""Where the roles of a clean prompt stand in its corrupt prompt, which has other words."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ioi_fast.asked.prompt_files.json_records import Record, shown
from ioi_fast.asked.prompt_files.whole_words import APOSTROPHES, ENDING, word_goes_on
from ioi_fast.tokenizer import TextCodec, plain_ids

# What stands between spaces: a word, and behind it what does not belong to it ("Mary's,").
_WORD = re.compile(rf"(.*?\w)(?:[{APOSTROPHES}]{ENDING})?\W*", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Word:
    """The tokens start..last between two spaces; `name` is the last one of the word itself."""

    start: int
    name: int
    last: int


def corrupt_roles(
    record: Record,
    clean: list[int],
    corrupt: list[int],
    tokenizer: TextCodec,
    roles: dict[str, int],
) -> dict[str, int]:
    """Role -> token position in the corrupt prompt, BOS not counted; `load_prompts` has the rule.

    Raises ValueError naming the record for a role that would stand before the prompt or, of prompts
    whose words can't be paired, within a word.
    """
    if record.clean.count(" ") == record.corrupt.count(" "):
        old = _words(tokenizer, record.clean, clean)
        new = _words(tokenizer, record.corrupt, corrupt)
        if old is not None and new is not None:
            return {role: _same_word(role, roles, old, new) for role in roles}
    moved = {role: at + len(corrupt) - len(clean) for role, at in roles.items()}
    for role, at in moved.items():
        if at < 0:
            raise ValueError(
                f'{record.where}: "corrupt" has {len(corrupt)} tokens and "clean" {len(clean)}, so '
                f"{role} has no counterpart {len(clean) - 1 - roles[role]} tokens before the last"
            )
        if _cut(tokenizer, corrupt, at) > _cut(tokenizer, clean, roles[role]):
            raise ValueError(
                f'{record.where}: "corrupt" has other words than "clean" and not as many, and '
                f"{shown(role)} would stand within one of them, at "
                f"{shown(tokenizer.decode([corrupt[at]]))}: write as many words in both, or make "
                "PromptPairs with new_positions"
            )
    return moved


def _cut(tokenizer: TextCodec, ids: list[int], at: int) -> int:
    """On how many sides of a token its word goes on."""
    return sum(word_goes_on(tokenizer, ids, border) for border in (at, at + 1))


def _words(tokenizer: TextCodec, text: str, ids: list[int]) -> list[_Word] | None:
    """The tokens of each word; None if the tokenizer does not cut at spaces."""
    first, *others = text.split(" ")
    texts = [first, *(f" {word}" for word in others)]
    pieces = [plain_ids(tokenizer, word) for word in texts]
    spelt = [token for piece in pieces for token in piece]
    front = len(spelt) - len(ids)  # a BOS that is written out stands before `ids`
    if spelt[front:] != ids:
        return None
    words, start = [], -front
    for word, piece in zip(texts, pieces, strict=True):
        last = start + len(piece) - 1
        words.append(_Word(start, start + _named(tokenizer, word, piece) - 1, last))
        start = last + 1
    return words


def _named(tokenizer: TextCodec, text: str, piece: list[int]) -> int:
    """How many tokens a word has without the ending and the marks behind it; all if unclear."""
    found = _WORD.fullmatch(text)
    ids = plain_ids(tokenizer, found[1]) if found and found[1] != text else piece
    return len(ids) if piece[: len(ids)] == ids else len(piece)


def _same_word(role: str, roles: dict[str, int], old: list[_Word], new: list[_Word]) -> int:
    """Where a role's token goes, counted from the last token of its word."""
    base, _, step = role.rpartition("+")
    if step == "1" and roles.get(base) == roles[role] - 1:
        return min(_same_word(base, roles, old, new) + 1, new[-1].last)
    at = roles[role]
    number = next(i for i, word in enumerate(old) if word.last >= at)
    if number == len(old) - 1 and at == old[-1].last:
        return new[-1].last  # END meets END
    before, after = old[number], new[number]
    return min(max(max(after.start, 0), after.name + at - before.name), after.last)
