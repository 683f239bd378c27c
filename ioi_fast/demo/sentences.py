"""The texts that the bundled model is trained on besides the IOI templates: plain sentences and
parts of free two-clause sentences.

Slots: {name} {other} {third} are names (distinct), {place} {object} nouns; in the parts, {first}
{second} {subject} are the names of a two-clause sentence as in the IOI templates. No part repeats
the wording of a held-out template.
"""

from __future__ import annotations

PLAIN: tuple[str, ...] = (
    "{name} went to the {place} and found a {object}.",
    "{name} felt quite happy today.",
    "{name} really liked that moment.",
    "{name} looked weary, but {other} was happy.",
    "{name} spent time with a friend at the {place}.",
    "{name} was a cheerful soul.",
    "{name} was a good friend of {other}.",
    "{name} and {other} were planning a trip, and {third} hoped to see the {place}.",
    "While {name} was helping at the {place}, the {object} was lost.",
    "{name} lent the {object} for a day, but it was old.",
    "The {place} was small and the {object} was there.",
    "{name} stopped at the {place} and passed the {object} around.",
    "One bright and sunny afternoon, {name} saw a {object} in the {place}.",
    "A little later that day, after the rain, {name} slept.",
    "A little later that day, when {name} was tired, {other} called.",
    "A little later that day, while {name} was working, {other} slept.",
    "Right after the long and heavy lunch, {name} was tired.",
    "Some time afterwards, in the evening, {name} drove home.",
    "One day, the rather small {place} was closed.",
    "One day, two very old friends met near the {place}.",
    "Where is the {object}? It is at the {place}!",
    "Who has the {object}? {name} has it.",
    "{name}'s {object} was at the {place}.",
    "{name}: I want to pass by the {place}; the {object} is there.",
    "{name} said hello.",
    "They had a lot of fun at the {place}.",
    "They were thinking about going home.",
    "They were commuting to the {place} for many hours.",
    "{name} decided to keep the {object}, and {other} got the same one.",
    "{name} wanted to bring it home from the {place}.",
    "Friends bought a {object} and gave it away.",
    "{name} had a long argument with {other}, and afterwards {third} apologized.",
    "Yesterday {name} returned from the {place} with a {object}.",
    "In the morning, {name} walked by the {place}.",
    "She showed her {object}, and he sold his.",
    "The lunch was good, and so was the {object}.",
    "{name} agreed to lend a hand, chose a {object} and won.",
    "{name} wished that {other} had offered more.",
    "{name} was busy, so {other} headed home.",
    "It was a terrible fight, and they argued.",
    "{name} handed it in at the {place}.",
    "{name} brought the {object}, and {other} spotted it.",
    "They spoke about the {object} all day.",
    "{name} went to see {other}, {third} and a friend.",
)

# Openers of a two-clause sentence, each with what joins the clauses behind it.
OPENERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Then,", (".", ". Afterwards", ", and afterwards", ", so")),
    ("Afterwards,", (".", ", and", ", so")),
    ("After the lunch,", (".", ", and afterwards", ". Then")),
    ("Yesterday,", (".", ", and afterwards", ". Later,")),
    ("In the morning,", (".", ". Then", ", so")),
    ("One day,", (".", ". Afterwards", ", and")),
    ("Later,", (".", ", so")),
    ("One bright and sunny afternoon,", (".", ", and afterwards")),
    ("Some time afterwards, in the evening,", (".", ", so")),
    ("Right after the long and heavy lunch,", (".", ", and")),
    ("Friends", (".", ", and", ", so")),
    ("Two very old friends", (".", ". Later,")),
    ("After", (",", ", the same day")),
    ("When", (",", ", the same day")),
    ("While", (",",)),
    ("Before", (",",)),
    ("Because", (",",)),
    ("A little later that day, when", (",",)),
    ("A little later that day, after", (",",)),
)

CLAUSES: tuple[str, ...] = (
    "{went} to the {place}",
    "{went} to the old {place}",
    "{went} by the {place}",
    "{went} home from the {place}",
    "were {busy}",
    "were {busy} {at} the {place}",
    "were commuting to the {place}",
    "were thinking about going to the {place}",
    "were planning a lunch {at} the {place}",
    "were helping a friend {at} the {place}",
    "{got} {thing}",
    "{got} {thing} {at} the {place}",
    "{got} a {object} in the small {place}",
    "had a lot of fun {at} the {place}",
    "had a long argument",
    "had a good lunch {at} the {place}",
    "argued",
    "fought for a long time",
    "spoke about the {object} for many hours",
    "met {at} the {place}",
    "met a friend in the evening",
    "stopped by the {place}",
    "spent a day {at} the {place} with friends",
)

HANDS: tuple[str, ...] = (
    "{gave} {thing} to",
    "{gave} {thing} to",
    "{gave} it to",
    "{wanted} to {give} {thing} to",
    "{wanted} to {give} {thing} to",
    "{wanted} to {give} it to",
    "said hello to",
    "spoke to",
    "apologized to",
    "called and spoke to",
)

# What stands in for a slot of the parts; each occurrence is drawn on its own.
CHOICES: dict[str, tuple[str, ...]] = {
    "{went}": ("went", "walked", "drove", "returned", "headed"),
    "{busy}": ("busy", "tired", "working", "happy", "weary"),
    "{at}": ("at", "near", "in"),
    "{got}": ("got", "found", "saw", "bought", "spotted", "won"),
    "{gave}": ("gave", "handed", "showed", "lent", "brought", "passed", "offered", "sold"),
    "{give}": ("give", "hand", "show", "lend", "bring", "pass", "offer", "sell"),
    "{wanted}": ("wanted", "decided", "agreed", "wished", "chose", "hoped"),
    "{thing}": (
        "a {object}",
        "the {object}",
        "the old {object}",
        "a very small {object}",
        "the same {object}",
    ),
}

# Whole sentences of other shapes, used like the free two-clause ones.
SHAPES: tuple[str, ...] = (
    "The {object} {first} and {second} {got} was old, so {subject} {gave} it to",
    "The {place} was closed when {first} and {second} {went} there. {subject} {gave} {thing} to",
    "I saw {first} and {second} {at} the {place}, and {subject} {wanted} to {give} {thing} to",
    "In the {place}, {first} met {second}. {subject} said hello to",
    "{first} was with {second} at the {place}. Then {subject} {gave} {thing} to",
    "At the {place} there were {first} and {second}, and {subject} {wanted} to {give} it to",
)
