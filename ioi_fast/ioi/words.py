"""The names, places and objects of the Indirect Object Identification prompts.

Each is one GPT-2 token with a leading space. The lists are those of the released code of Wang et
al. (2022, arXiv 2211.00593): 99 names, 8 places and 8 objects, not the round numbers of the paper's
text.
"""

from __future__ import annotations

from collections.abc import Iterable

from ioi_fast.tokenizer import TextCodec, single_token

_NAMES = """
Aaron Adam Alexander Alicia Allison Amanda Amber Amy Andrea Andrew Angela Anthony Ashley
Benjamin Bradley Brandon Brian Brittany Bryan Charles Christina Christine Christopher Cody
Courtney Crystal Daniel Danielle David Dustin Elizabeth Emily Eric Erica Erin Gregory Heather
Jacob James Jamie Jason Jeffrey Jennifer Jeremy Jesse Jessica John Jonathan Jose Joseph Joshua
Justin Katherine Katie Kelly Kenneth Kevin Kimberly Kristen Kyle Laura Lauren Lindsay Lindsey
Lisa Mark Mary Matthew Megan Melissa Michael Michelle Nathan Nicholas Nicole Patrick Paul Rachel
Rebecca Richard Robert Ryan Samantha Samuel Sara Sarah Scott Sean Shannon Stephanie Stephen
Steven Thomas Tiffany Timothy Travis Tyler Vanessa William
"""
NAMES: tuple[str, ...] = tuple(_NAMES.split())

PLACES: tuple[str, ...] = (
    "store",
    "garden",
    "restaurant",
    "school",
    "hospital",
    "office",
    "house",
    "station",
)

OBJECTS: tuple[str, ...] = (
    "ring",
    "kiss",
    "bone",
    "basketball",
    "computer",
    "necklace",
    "drink",
    "snack",
)


def check_words(tokenizer: TextCodec, names: Iterable[str]) -> None:
    """ValueError for a word of the lists, or a name beside them, that is more than one token: a
    tokenizer passes or fails whatever was drawn."""
    own = sorted(set(names) - set(NAMES))
    kinds = {"name": [*NAMES, *own], "place": PLACES, "object": OBJECTS}
    for kind, words in kinds.items():
        for word in words:
            single_token(tokenizer, f" {word}", f"tokenizer: the {kind}")
