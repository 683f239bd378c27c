"""Roles of corrupt prompts: at the same word, whatever the numbers of tokens happen to be."""

from __future__ import annotations

from functools import partial

import pytest
from gpt2_files import gpt2_tokenizer
from written_prompts import FIRST, load_records, words_at


@pytest.fixture
def load(tmp_path):
    return partial(load_records, tmp_path)


def record(clean: str, corrupt: str, answer: str = " Mary") -> dict:
    return {"clean": clean, "corrupt": corrupt, "answers": [answer], "wrong_answers": [" John"]}


CLEAN = "When Mary and John went to Annapolisville, John gave a ring to"


@pytest.mark.parametrize(
    ("clean", "corrupt", "roles"),
    [
        (
            CLEAN,
            "When Siobhan and Lisa went to Rome, Sarah gave a ring to",
            {"IO": "han", "S1": " Lisa", "S1+1": " went", "S2": " Sarah"},
        ),
        (
            CLEAN,
            "When Paul and Siobhan went to Dublin, Sarah gave a ring to",
            {"IO": " Paul", "S1": "han", "S1+1": " went", "S2": " Sarah"},
        ),
        (
            "Mary saw John's house. Then John gave a ring to",
            "Paul saw Lisa's house. Then Lisa gave a ring to",
            {"IO": "Paul", "S1": " Lisa", "S1+1": "'s", "S2": " Lisa"},
        ),
        (
            "Mary saw John's house. Then John gave a ring to",
            "Paul saw Siobhan. He left. Then Lisa gave a ring to",
            None,
        ),
        (
            "Mary and John went out. Then John spoke to",
            "Paul, and Lisa, went out! Then Siobhan, spoke to",
            {"IO": "Paul", "S1": " Lisa", "S1+1": ",", "S2": "han"},
        ),
        (
            "Mary, and John's cat went out. Then John, too, spoke to",
            "Siobhan and Paul went went out. Then Lisa too spoke to",
            {"IO": "han", "S1": " Paul", "S1+1": " went", "S2": " Lisa"},
        ),
    ],
)
@pytest.mark.parametrize("bos", [False, True])
def test_roles_stand_at_the_word_with_the_same_number(load, clean, corrupt, roles, bos):
    """Also where both prompts have equally many tokens, of which other words have more."""
    if roles is None:
        with pytest.raises(ValueError, match=r"prompts\[0\]: .* would stand within one of them"):
            load(record(clean, corrupt), prepend_bos=bos)
        return
    pairs = load(record(clean, corrupt), prepend_bos=bos)
    words = words_at(pairs, 0, new=True)
    assert words == {**roles, "END": " to"}
    assert int(pairs.new_end) == len(gpt2_tokenizer().encode(corrupt)) - 1 + bos


def test_equal_numbers_of_tokens_are_part_of_it():
    """The first case above is one of these: position for position a role would stand at "han"."""
    clean, corrupt = (
        gpt2_tokenizer().encode(text)
        for text in (CLEAN, "When Siobhan and Lisa went to Rome, Sarah gave a ring to")
    )
    assert len(clean) == len(corrupt)


EQUAL = [
    (CLEAN, "Once Siobhan and then Lisa went to Rome, Sarah gave a ring to"),
    (CLEAN, "Siobhan and Lisa went to Annapolis, Sarah gave a ring to"),
    (FIRST["clean"], "Then, Siobhan and Lisa walked to a store. Lisa handed me"),
]


@pytest.mark.parametrize(("clean", "corrupt"), EQUAL)
def test_other_numbers_of_words_keep_places_between_words_alone(load, clean, corrupt):
    """Refused by index if a role would stand within a word, with the word's piece."""
    good = FIRST | {"corrupt": FIRST["clean"]}
    with pytest.raises(
        ValueError, match=r"prompts\[1\]: \"corrupt\" has other words .* within one"
    ):
        load(good, record(clean, corrupt))


def test_other_words_at_the_same_places_are_taken(load):
    clean = "Then, Mary and John walked to the store. John handed a ring to"
    corrupt = "Then, Paul and Lisa walked: to the. Sarah handed a ring to"
    pairs = load(record(clean, corrupt))
    assert clean.count(" ") == corrupt.count(" ") + 1 and pairs.new_positions is None
    assert words_at(pairs, 0, new=True) == {
        "IO": " Paul", "S1": " Lisa", "S1+1": " walked", "S2": " Sarah", "END": " to",
    }  # fmt: skip


def test_positions_within_a_word_stay_within_it(load):
    """word_idxs may point at a piece of a word on both sides."""
    pieces = record(
        "Then Mary met Siobhan, who saw John. John left",
        "Then  Paul met Siobhan, who saw Lisa. Lisa left",
    )
    pairs = load(pieces, word_idxs={"piece": 4})
    assert words_at(pairs, 0, new=True)["piece"] == words_at(pairs, 0)["piece"] == "ob"
