"""The bundled model's training data as tokens: an endless, seeded stream of weighted sequences.

Stories (stories.py) and repeated random sequences, in a fixed mixture.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from ioi_fast.demo.stories import Stories
from ioi_fast.ioi.words import NAMES, OBJECTS, PLACES
from ioi_fast.tokenizer import Tokenizer

# Loss weights against 1 for other tokens: copying a name is what takes a small model long to find.
ANSWER_WEIGHT = 20.0
REPEATED_NAME_WEIGHT = 10.0
LONGEST_HALF = 31

# Share of each kind among the sequences.
MIXTURE: dict[str, float] = {
    "ioi": 0.44,
    "free": 0.22,
    "abc": 0.08,
    "repeat": 0.14,
    "plain": 0.12,
}


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """One training sequence; weights[t] is the loss weight of predicting ids[t] (0 for t = 0)."""

    kind: str
    ids: tuple[int, ...]
    weights: tuple[float, ...]


class Corpus:
    """Draws training sequences.

    Example:
        >>> next(Corpus(tokenizer, seed=0).stream()).kind
        'ioi'
    """

    def __init__(self, tokenizer: Tokenizer, seed: int) -> None:
        self.tokenizer = tokenizer
        self.rng = random.Random(f"demo corpus {seed}")
        self.stories = Stories(seed)
        self.names, nouns = (
            [tokenizer.encode(f" {word}")[0] for word in words]
            for words in (NAMES, (*PLACES, *OBJECTS))
        )
        self.words = self.names + nouns

    def stream(self) -> Iterator[TokenSequence]:
        """Sequences without end; the order depends on the seed alone."""
        kinds, shares = list(MIXTURE), list(MIXTURE.values())
        while True:
            (kind,) = self.rng.choices(kinds, shares)
            yield self._repeat() if kind == "repeat" else self._story(kind)

    def _story(self, kind: str) -> TokenSequence:
        story = self.stories.draw(kind)
        ids = self._front() + self.tokenizer.encode(story.text)
        repeated = (token in self.names and token in ids[:at] for at, token in enumerate(ids))
        weights = [REPEATED_NAME_WEIGHT if again else 1.0 for again in repeated]
        if story.answer:
            ids += self.tokenizer.encode(f" {story.answer}.")
            weights += [ANSWER_WEIGHT, 1.0]
        return TokenSequence(kind, tuple(ids), (0.0, *weights[1:]))

    def _repeat(self) -> TokenSequence:
        """Random tokens twice in a row; only the second half can be predicted and is learnt."""
        # Mostly short, now and then up to all 64 positions.
        long = self.rng.random() < 0.1
        length = self.rng.randint(13, LONGEST_HALF) if long else self.rng.randint(4, 12)
        pool = self.words if self.rng.random() < 0.5 else range(self.tokenizer.vocab_size - 1)
        half = self.rng.sample(pool, length)
        front = self._front()
        weights = [0.0] * (len(front) + length) + [0.0] + [1.0] * (length - 1)
        return TokenSequence("repeat", tuple(front + half + half), tuple(weights))

    def _front(self) -> list[int]:
        """<|endoftext|> in front of a fifth of all sequences, as prompts with BOS have it."""
        return [self.tokenizer.eos_id] if self.rng.random() < 0.2 else []
