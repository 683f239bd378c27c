"""One prompt as words: which template, which names at which role, which nouns; and its text.

Records are what is sampled and changed (other names, a longer opener, an inserted sentence); tokens
come last, in dataset.py. So every derived prompt keeps whatever was not changed.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ioi_fast.ioi.templates import FORM_SETS, INSERTIONS, TEMPLATES, form_id
from ioi_fast.ioi.words import NAMES, OBJECTS, PLACES


@dataclass(frozen=True, slots=True)
class IOIPrompt:
    """One prompt in words, without the answer.

    `io`, `s1`, `s2` are the names standing at those roles; in an original prompt s1 == s2 and io is
    the answer, in a derived one any names may stand there. `abba` says whether the IO role comes
    first. `inserted` are whole sentences between the two clauses.

    Example:
        >>> IOIPrompt(5, True, "Mary", "John", "John", "store", "ring").text
        'After Mary and John drove to the store, John brought a ring to'
    """

    template: int
    abba: bool
    io: str
    s1: str
    s2: str
    place: str
    object: str
    long_opener: bool = False
    inserted: tuple[str, ...] = ()

    @property
    def form(self) -> int:
        """Form id: BABA i is i, ABBA i is 15 + i."""
        return form_id(self.template, self.abba)

    @property
    def segments(self) -> list[tuple[str, str | None]]:
        """The text in pieces, each with the role of the name that it is, or None.

        Every name is a piece with its leading space, so pieces tokenise independently.
        """
        template = TEMPLATES[self.template]
        first, second = ("IO", "S1") if self.abba else ("S1", "IO")
        name = {"IO": self.io, "S1": self.s1, "S2": self.s2}
        whole = template.text(long=self.long_opener)
        before, rest = whole.split(" {first}")
        middle, rest = rest.split(" {second}")
        between, after = rest.split(" {subject}")
        pieces: list[tuple[str, str | None]] = [
            (before, None),
            (f" {name[first]}", first),
            (middle, None),
            (f" {name[second]}", second),
            (self._with_insertions(between, template.join), None),
            (f" {name['S2']}", "S2"),
            (after, None),
        ]
        return [(self._filled(text), role) for text, role in pieces]

    def _filled(self, text: str) -> str:
        return text.replace("{place}", self.place).replace("{object}", self.object)

    def _with_insertions(self, clause: str, join: str) -> str:
        head, mark, tail = clause.rpartition(join)
        return head + mark + "".join(f" {sentence}" for sentence in self.inserted) + tail

    @property
    def text(self) -> str:
        """The prompt's text up to " to"."""
        return "".join(text for text, _ in self.segments)

    def with_names(self, io: str, s1: str, s2: str) -> IOIPrompt:
        """The same sentence with other names at the three roles; inserted sentences follow."""
        renamed = {self.s1: s1, self.io: io}
        inserted = tuple(
            " ".join([renamed.get(word, word) for word in sentence.split(" ")])
            for sentence in self.inserted
        )
        return replace(self, io=io, s1=s1, s2=s2, inserted=inserted)


def sample_records(n: int, seed: int, forms: str | Sequence[int] = "mixed14") -> list[IOIPrompt]:
    """n original prompts: form, names, place and object uniform, the two names distinct.

    Raises TypeError or ValueError naming `n`, `seed` or `forms`.
    """
    chosen = check_forms(forms)
    if not isinstance(n, int) or isinstance(n, bool) or n < 1:
        raise ValueError(f"n must be an integer of at least 1, got {n!r}")
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise TypeError(f"seed must be an integer, got {seed!r}")
    rng = random.Random(f"ioi prompts {seed}")
    return [_sample(rng, chosen) for _ in range(n)]


def check_forms(forms: str | Sequence[int]) -> tuple[int, ...]:
    """Form ids of "mixed14", "all30" or a sequence of ids; ValueError for anything else."""
    if isinstance(forms, str):
        if forms not in FORM_SETS:
            raise ValueError(f"forms must be one of {sorted(FORM_SETS)} or form ids, got {forms!r}")
        return FORM_SETS[forms]
    chosen = tuple(int(form) for form in forms)
    if not chosen or any(not 0 <= form < 2 * len(TEMPLATES) for form in chosen):
        raise ValueError(f"forms must be ids in 0-{2 * len(TEMPLATES) - 1}, got {list(forms)}")
    return chosen


def _sample(rng: random.Random, forms: Sequence[int]) -> IOIPrompt:
    form = rng.choice(forms)
    io, s = rng.sample(NAMES, 2)
    return IOIPrompt(
        template=form % len(TEMPLATES),
        abba=form >= len(TEMPLATES),
        io=io,
        s1=s,
        s2=s,
        place=rng.choice(PLACES),
        object=rng.choice(OBJECTS),
    )


def insert_sentences(record: IOIPrompt, name: str, forms: Sequence[int]) -> IOIPrompt:
    """The prompt with sentences about `name` between its clauses, one per entry of `forms`."""
    sentences = tuple(INSERTIONS[form].format(name=name) for form in forms)
    return replace(record, inserted=sentences)
