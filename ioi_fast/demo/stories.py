"""The texts of the bundled model's training data, drawn at random, each with its answer.

A story of the task names a pair, then makes one of the pair act: the answer is the other. Most
stories also name somebody else, or somebody once more (before, or between the clauses), so that
counting names does not give the answer: the model has to find where the acting person was named
before, and with whom.

Held out of all training: three whole templates in both orders, and for every S a fifth of the names
as its IO.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from ioi_fast.demo import sentences
from ioi_fast.ioi.templates import TEMPLATES
from ioi_fast.ioi.words import NAMES, OBJECTS, PLACES

HELD_OUT_TEMPLATES: tuple[int, ...] = (3, 8, 13)
TRAINED_TEMPLATES: tuple[int, ...] = tuple(
    i for i in range(len(TEMPLATES)) if i not in HELD_OUT_TEMPLATES
)
HELD_OUT_SEED = 0

# Shares of what is added to a story of the task.
DISTRACTIONS: dict[str, float] = {
    "nothing": 0.4,
    "a sentence about others before": 0.1,
    "another pair before": 0.25,
    "a sentence between the clauses": 0.25,
}
_SLOTS = re.compile("|".join(re.escape(slot) for slot in sentences.CHOICES))
_NAMELESS = tuple(text for text in sentences.PLAIN if "{name}" not in text)
_ABOUT_ONE = tuple(
    text
    for text in sentences.PLAIN
    if text.startswith("{name} ") and "{other}" not in text and "{third}" not in text
)


@dataclass(frozen=True, slots=True)
class Story:
    """A text and what follows it: `answer` is a name, "" for a plain text. `pair` is (IO, S)."""

    text: str
    answer: str = ""
    pair: tuple[str, str] | None = None


def wordings(template: int) -> tuple[str, ...]:
    """The parts of a template behind its first name that are two words or longer."""
    parts = re.split(r"\{\w+\}", TEMPLATES[template].rest)
    return tuple(part.strip(" .,") for part in parts if len(part.split()) >= 2)


_HELD_OUT_WORDINGS = tuple(part for i in HELD_OUT_TEMPLATES for part in wordings(i))


def held_out_ios() -> dict[str, frozenset[str]]:
    """For every S, the fifth of the other names that never is its IO in training."""
    rng = random.Random(f"held-out pairs {HELD_OUT_SEED}")
    others = {s: [name for name in NAMES if name != s] for s in NAMES}
    return {s: frozenset(rng.sample(others[s], round(len(others[s]) / 5))) for s in NAMES}


class Stories:
    """Draws stories of the kinds "ioi" (trained templates), "free", "abc" and "plain".

    Example:
        >>> Stories(seed=0).draw("ioi").answer
        'Amanda'
    """

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(f"demo stories {seed}")
        self.held_out = held_out_ios()

    def draw(self, kind: str) -> Story:
        """One story; now and then a sentence without names before it moves every position."""
        story = self._plain() if kind == "plain" else self._task(kind)
        if self.rng.random() < 0.05:
            text = f"{self._filled(self.rng.choice(_NAMELESS))} {story.text}"
            return Story(text, story.answer, story.pair)
        return story

    def _plain(self) -> Story:
        return Story(self._filled(self.rng.choice(sentences.PLAIN), *self.rng.sample(NAMES, 3)))

    def _task(self, kind: str) -> Story:
        """A two-clause story; in "abc" somebody new acts and the answer is either of the pair."""
        rng = self.rng
        io, s = self._pair()
        others = rng.sample([name for name in NAMES if name not in (io, s)], 4)
        text, before = self._two_clauses(kind), ""
        (added,) = rng.choices(list(DISTRACTIONS), list(DISTRACTIONS.values()))
        asked = (io, s)
        if added == "a sentence about others before":
            before = f"{self._filled(rng.choice(sentences.PLAIN), *others[:3])} "
        elif added == "another pair before" and kind != "abc":
            earlier = self._pair(without=(io, s))
            before = f"{self._pair_sentence(*earlier)} "
            asked = rng.choice((asked, earlier))
        elif added == "a sentence between the clauses":
            about = rng.choice((io, s, others[0]))
            text = _between(text, rng.choice(_ABOUT_ONE).replace("{name}", about))
        answer, subject = (rng.choice((io, s)), others[3]) if kind == "abc" else asked
        first, second = self._shuffled(io, s)
        names = {"{first}": first, "{second}": second, "{subject}": subject}
        for slot, name in names.items():
            text = text.replace(slot, name)
        return Story(before + self._filled(text), answer, None if kind == "abc" else asked)

    def _pair(self, without: tuple[str, ...] = ()) -> tuple[str, str]:
        """An IO and an S that training may show together."""
        while True:
            io, s = self.rng.sample(NAMES, 2)
            if io not in self.held_out[s] and not {io, s} & set(without):
                return io, s

    def _shuffled(self, io: str, s: str) -> tuple[str, str]:
        return (io, s) if self.rng.random() < 0.5 else (s, io)

    def _pair_sentence(self, io: str, s: str) -> str:
        first, second = self._shuffled(io, s)
        opener = self.rng.choice([opener for opener, joins in sentences.OPENERS if "." in joins])
        clause = self._worded(self.rng.choice(sentences.CLAUSES))
        return self._filled(f"{opener} {first} and {second} {clause}.")

    def _two_clauses(self, kind: str) -> str:
        """A text with open slots: a trained template, or free parts put together."""
        rng = self.rng
        if kind == "ioi" or (kind == "abc" and rng.random() < 0.5):
            return TEMPLATES[rng.choice(TRAINED_TEMPLATES)].text()
        if rng.random() < 0.3:
            return self._worded(rng.choice(sentences.SHAPES))
        opener, joins = rng.choice(sentences.OPENERS)
        clause, hand, join = (
            rng.choice(parts) for parts in (sentences.CLAUSES, sentences.HANDS, joins)
        )
        return self._worded(f"{opener} {{first}} and {{second}} {clause}{join} {{subject}} {hand}")

    def _worded(self, text: str) -> str:
        """A free text with its word slots filled, never in the words of a held-out template."""
        while True:
            found = _SLOTS.sub(lambda slot: self.rng.choice(sentences.CHOICES[slot[0]]), text)
            if not any(wording in found for wording in _HELD_OUT_WORDINGS):
                return found

    def _filled(self, text: str, name: str = "", other: str = "", third: str = "") -> str:
        slots = {"{name}": name, "{other}": other, "{third}": third}
        slots |= {"{place}": self.rng.choice(PLACES), "{object}": self.rng.choice(OBJECTS)}
        for slot, word in slots.items():
            text = text.replace(slot, word)
        return text


def _between(text: str, sentence: str) -> str:
    """A sentence put behind the last period before {subject}, else behind the last comma."""
    clause, subject, rest = text.partition(" {subject}")
    mark = "." if "." in clause else ","
    head, _, tail = clause.rpartition(mark)
    return f"{head}{mark} {sentence}{tail}{subject}{rest}"
