"""The fifteen sentence templates, each usable in two orders: thirty forms.

Form ids: BABA of template i is i (the repeated name S comes first), ABBA of template i is 15 + i
(IO comes first); only the two names of the first clause change places. The wording is our own. It
keeps, for every name, place and object, the token counts of the templates of Wang et al. (2022)
under GPT-2's tokenisation: total length, first name, S2, END and the punctuation between clauses.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Template:
    """One sentence with slots {first} {second} {place} {object} {subject}.

    `opener` stands before the first name and `rest` follows it; `long_opener` is a longer text in
    the opener's place, which moves every later token without changing their distances.
    """

    opener: str
    rest: str
    long_opener: str

    def text(self, *, long: bool = False) -> str:
        """The sentence with its slots open."""
        return f"{self.long_opener if long else self.opener} {{first}}{self.rest}"

    @property
    def join(self) -> str:
        """The mark between the clauses: the last period if there is one, else the last comma."""
        return "." if "." in self.rest else ","


def _then(rest: str) -> Template:
    return Template("Then,", rest, "One bright and sunny afternoon,")


TEMPLATES: tuple[Template, ...] = (
    _then(" and {second} walked to the {place}. {subject} handed a {object} to"),
    _then(" and {second} spent a very happy day at the {place}. {subject} offered a {object} to"),
    _then(" and {second} were busy at the {place}. {subject} chose to hand a {object} to"),
    _then(
        " and {second} were planning a trip to the {place}. {subject} hoped to pass a {object} to"
    ),
    _then(" and {second} argued for many hours, and afterwards {subject} spoke to"),
    Template(
        "After",
        " and {second} drove to the {place}, {subject} brought a {object} to",
        "A little later that day, after",
    ),
    Template(
        "When",
        " and {second} bought a {object} at the {place}, {subject} wished to hand it to",
        "A little later that day, when",
    ),
    Template(
        "When",
        " and {second} won a {object} at the {place}, {subject} agreed to lend the {object} to",
        "A little later that day, when",
    ),
    Template(
        "While",
        " and {second} were helping at the {place}, {subject} lent a {object} to",
        "A little later that day, while",
    ),
    Template(
        "While",
        " and {second} were driving to the {place}, {subject} showed a {object} to",
        "A little later that day, while",
    ),
    Template(
        "After the lunch,",
        " and {second} headed to the {place}. {subject} sold a {object} to",
        "Right after the long and heavy lunch,",
    ),
    Template(
        "Afterwards,",
        " and {second} returned to the {place}. {subject} gave a {object} to",
        "Some time afterwards, in the evening,",
    ),
    _then(" and {second} had a terrible fight. Afterwards {subject} apologized to"),
    Template(
        "The {place}",
        " and {second} stopped at had a {object}. {subject} passed it to",
        "One day, the rather small {place}",
    ),
    Template(
        "Friends",
        " and {second} spotted a {object} near the {place}. {subject} gave it to",
        "One day, two very old friends",
    ),
)

# Sentences about {name} that an adversarial prompt inserts between its clauses: 6, 6, 4, 7 and 6
# tokens with the leading space and the period.
INSERTIONS: tuple[str, ...] = (
    "{name} felt quite happy today.",
    "{name} really liked that moment.",
    "{name} looked weary.",
    "{name} spent time with a friend.",
    "{name} was a cheerful soul.",
)

FORM_SETS: dict[str, tuple[int, ...]] = {
    # The authors' own data set takes the first 15 // 2 templates only, in both orders.
    "mixed14": (*range(7), *range(15, 22)),
    "all30": tuple(range(30)),
}


def form_id(template: int, abba: bool) -> int:
    """Form of a template and order: BABA i is i, ABBA i is 15 + i."""
    return template + len(TEMPLATES) * abba


def form_name(form: int) -> str:
    """A form as people write it: "BABA 3", "ABBA 12"; ValueError outside 0-29."""
    if not 0 <= form < 2 * len(TEMPLATES):
        raise ValueError(f"form must be in 0-{2 * len(TEMPLATES) - 1}, got {form}")
    return f"{'ABBA' if form >= len(TEMPLATES) else 'BABA'} {form % len(TEMPLATES)}"
