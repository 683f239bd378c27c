"""load_prompts: the roles it finds, prompts of two lengths, and bad records named by index."""

from __future__ import annotations

import json
from functools import partial

import pytest
from gpt2_files import gpt2_tokenizer
from written_prompts import FIRST, load_records, words_at

from ioi_fast.asked.prompt_files import load_prompts

SECOND = {
    "clean": "When John and Mary won a ring, John agreed to lend the ring to",
    "corrupt": "When Paul and Lisa won a ring, Sarah agreed to lend the ring to",
    "answers": [" Mary"],
    "wrong_answers": [" John"],
}


@pytest.fixture
def load(tmp_path):
    return partial(load_records, tmp_path)


@pytest.mark.parametrize("bos", [False, True])
def test_roles_are_found(load, bos):
    pairs = load(FIRST, SECOND, prepend_bos=bos)
    assert pairs.roles == ("IO", "S1", "S1+1", "S2", "END") and pairs.new_positions is None
    expected = {"IO": [2, 3], "S1": [4, 1], "S1+1": [5, 2], "S2": [10, 8], "END": [14, 14]}
    shifted = {role: [at + bos for at in row] for role, row in expected.items()}
    assert {role: at.tolist() for role, at in pairs.positions.items()} == shifted
    assert words_at(pairs, 0) == {
        "IO": " Mary", "S1": " John", "S1+1": " walked", "S2": " John", "END": " to",
    }  # fmt: skip
    assert words_at(pairs, 1, new=True)["S1+1"] == " and"
    assert pairs.answers.tolist() == [5335, 5335]
    assert pairs.wrong_answers.tolist() == [1757, 1757]
    text = gpt2_tokenizer().decode(pairs.orig[0].tolist())
    assert text == "<|endoftext|>" * bos + FIRST["clean"]


def test_shorter_prompts_are_padded_with_end_of_text(load):
    short = FIRST | {
        "clean": "Mary saw John. John spoke to",
        "corrupt": "Lisa saw Paul. Paul spoke to",
    }
    pairs = load(FIRST, short)
    assert pairs.end.tolist() == [14, 6]
    assert set(pairs.orig[1, 7:].tolist()) == set(pairs.new[1, 7:].tolist()) == {50256}
    # The first word has no leading space and is found all the same.
    assert words_at(pairs, 1)["IO"] == "Mary" and words_at(pairs, 1)["S1+1"] == "."


def test_s2_is_the_last_occurrence(load):
    clean = "Then, Mary and John walked. Mary slept. John felt happy. John spoke to"
    pairs = load(FIRST | {"clean": clean, "corrupt": clean})
    found = {role: int(at) for role, at in pairs.positions.items()}
    assert found == {"IO": 2, "S1": 4, "S1+1": 5, "S2": 14, "END": 16}


def test_word_idxs(load):
    pairs = load(FIRST, word_idxs={"IO": 2, "S1": 4, "S2": 10, "end": 14, "punct": 9})
    assert pairs.roles == ("IO", "S1", "S2", "END", "punct")
    assert words_at(pairs, 0)["punct"] == "." and pairs.end.tolist() == [14]


def test_word_idxs_may_end_early(load):
    pairs = load(FIRST, word_idxs={"end": 10}, prepend_bos=True)
    assert pairs.roles == ("END",) and pairs.orig.shape == (1, 12)
    assert words_at(pairs, 0) == {"END": " John"}


def test_as_many_words_but_more_tokens(load):
    """A corrupt name of three tokens: every role stays at its word, S1+1 behind the name."""
    corrupt = "Then, Paul and Zyxwv walked to the store. Sarah handed a ring to"
    pairs = load(FIRST | {"corrupt": corrupt}, SECOND)
    assert pairs.new_positions is not None
    shift = pairs.new_end[0] - pairs.end[0]
    assert shift == len(gpt2_tokenizer().encode(" Zyxwv")) - 1 > 0
    assert words_at(pairs, 0, new=True) == {
        "IO": " Paul", "S1": "v", "S1+1": " walked", "S2": " Sarah", "END": " to",
    }  # fmt: skip
    assert [int(at[1]) for at in pairs.new_roles.values()] == [3, 1, 2, 8, 14]
    assert pairs.swapped().end.tolist() == pairs.new_end.tolist()


def test_role_inside_a_word_that_shrinks(load):
    """word_idxs may point at a piece of a word; it never leaves that word."""
    record = FIRST | {
        "clean": "Then, Zyxwv and John walked, so Mary met John and spoke to",
        "corrupt": "Then, Paul and Lisa walked, so Sarah met Paul and spoke to",
    }
    ids = gpt2_tokenizer().encode(record["clean"])
    pieces = len(gpt2_tokenizer().encode(" Zyxwv"))
    pairs = load(record, word_idxs={"first": 2, "last": 1 + pieces, "end": len(ids) - 1})
    found = words_at(pairs, 0, new=True)
    assert found == {"first": " Paul", "last": " Paul", "END": " to"}


def test_other_number_of_words_keeps_the_distance_to_the_end(load):
    corrupt = (
        "One bright and sunny afternoon, Paul and Lisa walked to the store. Paul handed a ring to"
    )
    pairs = load(FIRST | {"corrupt": corrupt}, prepend_bos=True)
    assert words_at(pairs, 0, new=True) == {
        "IO": " Paul", "S1": " Lisa", "S1+1": " walked", "S2": " Paul", "END": " to",
    }  # fmt: skip
    assert int(pairs.new_end) == pairs.new.shape[1] - 1


def test_a_transformers_like_tokenizer_is_taken(tmp_path):
    class Foreign:
        eos_token_id = 50256
        encode = staticmethod(gpt2_tokenizer().encode)
        decode = staticmethod(gpt2_tokenizer().decode)

    path = tmp_path / "one.json"
    path.write_text(json.dumps({"prompts": [FIRST]}), "utf-8")
    theirs, ours = (load_prompts(str(path), t) for t in (Foreign(), gpt2_tokenizer()))
    assert theirs.token_hash() == ours.token_hash()


def changed(**changes) -> dict:
    """The second record with some keys replaced; None removes one."""
    return {key: value for key, value in (SECOND | changes).items() if value is not None}


BAD = [
    (5, r"prompts\[1\] must be an object, got int"),
    (changed(clean=None), r'prompts\[1\]: "clean" must be a text, got None'),
    (changed(clean=""), r"""prompts\[1\]: "clean" must be a text, got ''"""),
    (changed(corrupt=3), r'prompts\[1\]: "corrupt" must be a text, got 3'),
    (
        changed(answers=None),
        r'prompts\[1\]: "answers" must be a list of exactly one text, got None',
    ),
    (changed(answers=" Mary"), r"""prompts\[1\]: "answers" must be a list .* got ' Mary'"""),
    (changed(answers="x" * 60), "got '" + "x" * 60 + "'"),
    (changed(answers=[]), r'prompts\[1\]: "answers" must be a list of exactly one text'),
    (changed(wrong_answers=["a", "b"]), r'prompts\[1\]: "wrong_answers" .* exactly one text'),
    (changed(answers=[" Zyxwv"]), r"prompts\[1\]: answers: ' Zyxwv' must be a single token"),
    (changed(answers=[" John"]), r"prompts\[1\]: answers and wrong_answers must differ"),
    (
        changed(answers=[" Lisa"]),
        r"prompts\[1\]: the clean prompt must hold .*' Lisa'.* got 0 and 2",
    ),
    (changed(wrong_answers=[" Paul"]), r"prompts\[1\]: the clean prompt .*' Paul'.* got 1 and 0"),
    (changed(corrupt="Go to"), r'prompts\[1\]: "corrupt" has 2 tokens.*IO has no counterpart 11'),
]


@pytest.mark.parametrize(("record", "message"), BAD)
def test_bad_records_are_named_by_index(load, record, message):
    with pytest.raises(ValueError, match=message):
        load(FIRST, record)


BAD_WORD_IDXS = [
    ([3], r'"word_idxs" must be an object \{role: token index\}, got \[3\]'),
    ("end", r"""must be an object .*, got 'end'"""),
    ({"all": 3}, r'word_idxs\["all"\] can\'t be a role'),
    ({"": 3}, r'word_idxs\[""\] can\'t be a role'),
    ({"IO": 2.0, "end": 14}, r'word_idxs\["IO"\] must be a token index, got 2.0'),
    ({"IO": -1, "end": 14}, r'word_idxs\["IO"\] must be a token index, got -1'),
    ({"end": "14"}, r"""word_idxs\["end"\] must be a token index, got '14'"""),
    ({"IO": 2, "end": "14"}, r"""word_idxs\["end"\] must be a token index, got '14'"""),
    ({"IO": 2, "end": None}, r'word_idxs\["end"\] must be a token index, got None'),
    ({"end": 14, "END": 3}, 'word_idxs must name END "end" alone'),
    ({"S1": 10, "S2": 4}, r'word_idxs\["S2"\] must lie behind S1 \(10\), got 4'),
    ({"S1": 10, "S2": 10}, r'word_idxs\["S2"\] must lie behind S1 \(10\), got 10'),
    ({"S1": 4, "S1+1": 9}, r'word_idxs\["S1\+1"\] must be one behind S1 \(4\), got 9'),
    ({"S1": 4, "S1+1": 4}, r'word_idxs\["S1\+1"\] must be one behind S1 \(4\), got 4'),
    ({"io": 2, "s1": 4}, r'word_idxs\["io"\] must be written "IO"'),
    ({"s2": 10}, r'word_idxs\["s2"\] must be written "S2"'),
    ({"s1+1": 5}, r'word_idxs\["s1\+1"\] must be written "S1\+1"'),
    ({"End": 14}, r'word_idxs\["End"\] must be written "end"'),
    ({"IO": 15, "end": 14}, r'word_idxs\["IO"\] must not lie behind end \(14\), got 15'),
    ({"end": 15}, r'prompts\[0\]: "clean" has 15 tokens, word_idxs end is 15'),
    ({"IO": 3, "end": 14}, r"prompts\[0\]: word_idxs IO is 3, .* has ' and', not ' Mary'"),
    ({"S2": 2, "end": 14}, r"prompts\[0\]: word_idxs S2 is 2, .* has ' Mary', not ' John'"),
]


@pytest.mark.parametrize(("word_idxs", "message"), BAD_WORD_IDXS)
def test_bad_word_idxs(load, word_idxs, message):
    with pytest.raises(ValueError, match=message):
        load(FIRST, word_idxs=word_idxs)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "broken.json is not valid JSON"),
        ("[]", r'broken.json must hold a JSON object, got list. load_prompts reads \{"prompts"'),
        ("{}\n{}\n", r'broken.json is not valid JSON.* load_prompts reads \{"prompts"'),
        ('{"prompts": []}', "at least one record"),
        ('{"prompts": {"clean": 1}}', "at least one record"),
        ('{"records": []}', "at least one record"),
    ],
)
def test_files_of_another_form(tmp_path, text, message):
    path = tmp_path / "broken.json"
    path.write_text(text, "utf-8")
    with pytest.raises(ValueError, match=message):
        load_prompts(path, gpt2_tokenizer())


def test_wrong_arguments(tmp_path):
    path = tmp_path / "one.json"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="not valid JSON"):
        load_prompts(path, gpt2_tokenizer())
    with pytest.raises(FileNotFoundError):
        load_prompts(tmp_path / "none.json", gpt2_tokenizer())
    with pytest.raises(TypeError, match="tokenizer must have encode and decode"):
        load_prompts(path, None)
    for wrong in (None, 5, b"one.json"):
        with pytest.raises(TypeError, match="path must be a str or a Path, got "):
            load_prompts(wrong, gpt2_tokenizer())
    with pytest.raises(TypeError, match="prepend_bos must be a bool"):
        load_prompts(path, gpt2_tokenizer(), prepend_bos="no")
