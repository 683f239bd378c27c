"""Names in prompt files: whole words, in the form whose logit is read, where their role stands."""

from __future__ import annotations

from functools import partial

import pytest
from gpt2_files import gpt2_tokenizer
from written_prompts import FIRST, load_records, words_at

from ioi_fast.asked.prompt_files.whole_words import whole_words


@pytest.fixture
def load(tmp_path):
    return partial(load_records, tmp_path)


def found(text: str, word: str) -> list[str]:
    """The tokens at which a word is found."""
    tokenizer = gpt2_tokenizer()
    ids = tokenizer.encode(text)
    return [
        tokenizer.decode(ids[one.start : one.stop]) for one in whole_words(tokenizer, ids, word)
    ]


WHOLE = [
    "When Ann met", "Ann met", "to Ann", "Ann", '"Ann" said', "(Ann)", "\nAnn:", "\tAnn", "Ann's",
    "Ann’s ring", "ANN Ann'll", "with Ann, so", "Ann.", "'Ann'", "a--Ann--b", "Ann—as", "the  Ann",
    "é Ann é", "James' Ann", "Ann- and", "x/Ann/y", "😀Ann😀",
]  # fmt: skip
PARTS = [
    "in Annapolis", "JoAnn met", "to JoAnn", "Annapolis", "Ann-Marie", "Mary-Ann", "O'Ann met",
    "Ann'Marie", "Ann2", "2Ann", "Ann_x", "_Ann", "Anné", "éAnn", "Ann\u0301e", "Ann\u00adapolis",
    "Anna", "ann met", "Mary‐Ann", "Ann\u200dx", "Annи", "D’Ann", "Ann'sx",
]  # fmt: skip


@pytest.mark.parametrize("text", WHOLE)
def test_a_whole_word_is_found(text):
    assert [one.strip() for one in found(text, " Ann")] == ["Ann"]


@pytest.mark.parametrize("text", PARTS)
def test_a_part_of_a_word_is_not(text):
    assert found(text, " Ann") == []


def test_words_of_several_tokens_are_one_stretch():
    tokenizer = gpt2_tokenizer()
    ids = tokenizer.encode("Tyrone saw Tyrone, and Tyrones")
    stretches = whole_words(tokenizer, ids, " Tyrone")
    assert [tokenizer.decode(ids[one.start : one.stop]) for one in stretches] == [
        "Tyrone",
        " Tyrone",
    ]
    assert [one.stop - one.start for one in stretches] == [3, 2]


def test_a_tokenizer_that_begins_texts_with_a_space():
    """Its "Ann" is " Ann", and a name behind a quote is found all the same."""

    class Spaced:
        decode = staticmethod(gpt2_tokenizer().decode)

        @staticmethod
        def encode(text):
            return gpt2_tokenizer().encode(text if text.startswith(" ") else f" {text}")

    ids = Spaced.encode('Ann and "Ann" and JoAnn')
    found = [Spaced.decode(ids[one.start : one.stop]) for one in whole_words(Spaced, ids, "Ann")]
    assert found == [" Ann", "Ann"]


@pytest.mark.parametrize(
    ("clean", "answer", "wrong", "roles"),
    [
        (
            "In Annapolis, John and Ann met JoAnn. John gave a ring to",
            " Ann", " John", {"IO": " Ann", "S1": " John", "S1+1": " and"},
        ),
        (
            "John's friend and Mary's cat met. Then John gave a ring to",
            " Mary", " John", {"IO": " Mary", "S1": "John", "S1+1": "'s"},
        ),
        (
            '"John," said Mary. "Hi!" "John" gave a ring to',
            " Mary", " John", {"IO": " Mary", "S1": "John", "S1+1": ',"', "S2": "John"},
        ),
        (
            "Ann-Marie and Mary-Ann met Ann and Mary, and Mary gave a ring to",
            " Ann", " Mary", {"IO": " Ann", "S1": " Mary", "S1+1": ","},
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("bos", [False, True])
def test_roles_stand_at_whole_names(load, clean, answer, wrong, roles, bos):
    record = {"clean": clean, "corrupt": clean, "answers": [answer], "wrong_answers": [wrong]}
    pairs = load(record, prepend_bos=bos)
    words = words_at(pairs, 0)
    assert words | roles == words and words["END"] == " to"
    assert int(pairs.positions["S1"]) < int(pairs.positions["S2"])


def test_a_name_inside_another_is_no_name(load):
    clean = "In Annapolis, John met JoAnn. John gave a ring to"
    with pytest.raises(ValueError, match=r"prompts\[0\]: .*' Ann' as a word .* got 0 and 2"):
        load(FIRST | {"clean": clean, "answers": [" Ann"]})
    with pytest.raises(ValueError, match=r"prompts\[0\]: word_idxs IO is 1, .* ' Ann', not ' Ann'"):
        load(FIRST | {"clean": clean, "answers": [" Ann"]}, word_idxs={"IO": 1})


OTHER_FORMS = [
    ({"answers": ["Mary"]}, None, "answers: 'Mary' is another token than ' Mary', which stands"),
    ({"wrong_answers": ["John"]}, None, "wrong_answers: 'John' is another token than ' John'"),
    ({"answers": ["Mary"]}, {}, "answers: 'Mary' is another token than ' Mary'"),
    ({"answers": ["Mary"]}, {"IO": 2, "end": 14}, "answers: 'Mary' is another token"),
    ({"wrong_answers": ["John"]}, {"S2": 10}, "wrong_answers: 'John' is another token"),
    (
        {"clean": "Amanda and John met. John gave a ring to", "answers": [" Amanda"]},
        None,
        r"answers: ' Amanda' stands .* as the 2 tokens \['Am', 'anda'\], and a role is one token",
    ),
]


@pytest.mark.parametrize(("changes", "word_idxs", "message"), OTHER_FORMS)
def test_another_form_of_the_answer_is_refused(load, changes, word_idxs, message):
    more = {} if word_idxs is None else {"word_idxs": word_idxs}
    with pytest.raises(ValueError, match=rf"prompts\[1\]: {message}"):
        load(FIRST, FIRST | changes, **more)


def test_an_answer_that_goes_on_with_the_last_word_is_taken(load):
    """Years of a century have no space, whatever stands elsewhere."""
    text = "In 52 years, the war lasted from the year 1732 to the year 17"
    record = {"clean": text, "corrupt": text, "answers": ["52"], "wrong_answers": ["12"]}
    pairs = load(record, word_idxs={})
    assert pairs.roles == ("END",) and pairs.answers.tolist() == gpt2_tokenizer().encode("52")


def test_an_answer_on_a_line_of_its_own_is_taken(load):
    """Without roles of names; behind a line break it has no space."""
    lines = {key: f"{FIRST[key]} whom?\n" for key in ("clean", "corrupt")}
    pairs = load(FIRST | lines | {"answers": ["Mary"], "wrong_answers": ["John"]}, word_idxs={})
    assert pairs.roles == ("END",) and words_at(pairs, 0) == {"END": "\n"}
    assert pairs.answers.tolist() == gpt2_tokenizer().encode("Mary")


DIET = {
    "clean": "The cows ate some",
    "corrupt": "The cats ate some",
    "answers": [" grass"],
    "wrong_answers": [" mice"],
}


SPACES = [
    ({"clean": FIRST["clean"] + " "}, r'prompts\[1\]: "clean" must not end in a space'),
    ({"clean": FIRST["clean"] + "\t "}, r'prompts\[1\]: "clean" must not end in a space'),
    ({"clean": FIRST["clean"] + "\u00a0 "}, r'prompts\[1\]: "clean" must not end in a space'),
    ({"clean": FIRST["clean"] + "\n.\t  "}, r'prompts\[1\]: "clean" must not end in a space'),
    ({"corrupt": FIRST["corrupt"] + "  "}, r'prompts\[1\]: "corrupt" must not end in a space'),
]


@pytest.mark.parametrize(("changes", "message"), SPACES)
@pytest.mark.parametrize("word_idxs", [None, {"end": 14}])
def test_a_text_that_ends_in_a_space_is_refused(load, changes, message, word_idxs):
    with pytest.raises(ValueError, match=message):
        load(FIRST, FIRST | changes, word_idxs=word_idxs)


@pytest.mark.parametrize("end", ["\n", "\n    ", "\n\t ", "\r\n  ", "\t", "\n\n", "\u00a0"])
def test_line_breaks_and_indents_may_end_a_text(load, end):
    changes = {key: FIRST[key] + end for key in ("clean", "corrupt")}
    pairs = load(FIRST | changes)
    ids = gpt2_tokenizer().encode(FIRST["clean"] + end)
    assert pairs.orig[0].tolist() == ids and int(pairs.end) == len(ids) - 1


def test_a_space_may_end_a_text_whose_answers_have_none(load):
    record = DIET | {"clean": "2 + 2 = ", "corrupt": "2 + 1 = "}
    assert load(record | {"answers": ["4"], "wrong_answers": ["3"]}).roles == ("END",)
