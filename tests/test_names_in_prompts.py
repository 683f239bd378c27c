"""Whether answers are names in the prompts: all of them have theirs, or END is the only role."""

from __future__ import annotations

from functools import partial

import pytest
from gpt2_files import gpt2_tokenizer
from written_prompts import FIRST, load_records, words_at

DIET = {
    "clean": "The cows ate some",
    "corrupt": "The cats ate some",
    "answers": [" grass"],
    "wrong_answers": [" mice"],
}
CITY = {
    "clean": "The capital of Singapore is the city of",
    "corrupt": "The capital of Germany is the city of",
    "answers": [" Singapore"],
    "wrong_answers": [" Berlin"],
}


@pytest.fixture
def load(tmp_path):
    return partial(load_records, tmp_path)


def named(clean: str, answer: str = " Mary", wrong: str = " Ann") -> dict:
    return {"clean": clean, "corrupt": clean, "answers": [answer], "wrong_answers": [wrong]}


def test_without_names_end_is_the_only_role(load):
    """Nor does a single answer that stands there by chance, in one prompt of eight, make names."""
    pairs = load(DIET, *[DIET] * 6, CITY, prepend_bos=True)
    assert pairs.roles == ("END",) and pairs.end.tolist() == [4] * 7 + [8]
    assert [words_at(pairs, row)["END"] for row in (0, 7)] == [" some", " of"]


HALF_NAMED = [
    ("When Mary and JoAnn went out, JoAnn gave a ring to", 1, 0),
    ("When Mary and Mary went out, JoAnn gave a ring to", 2, 0),
    ("When JoAnn and Ann went out, JoAnn gave a ring to", 0, 1),
    ("When Joe and Ann went out, Ann gave a ring to", 0, 2),
    ("When Mary and Ann went out, JoAnn gave a ring to", 1, 1),
]


@pytest.mark.parametrize(("clean", "io", "s"), HALF_NAMED)
def test_a_prompt_that_lacks_a_name_is_refused(load, clean, io, s):
    message = rf"prompts\[0\]: .*' Mary' .*' Ann' twice, got {io} and {s} .*\{{\}} for END alone"
    with pytest.raises(ValueError, match=message):
        load(named(clean))
    pairs = load(named(clean), word_idxs={})
    assert pairs.roles == ("END",) and words_at(pairs, 0) == {"END": " to"}
    if io + s > 1:  # one such prompt among many others is no chance
        with pytest.raises(ValueError, match=r"prompts\[0\]: .* got 0 and 0"):
            load(*[DIET] * 30, named(clean))


def test_names_in_some_records_refuse_the_others(load):
    with pytest.raises(ValueError, match=r"prompts\[1\]: .* got 0 and 0 .*\{\} for END alone"):
        load(FIRST, DIET)
    assert load(FIRST, DIET, word_idxs={}).end.tolist() == [14, 3]
    with pytest.raises(ValueError, match=r"prompts\[0\]: .* got 1 and 1"):
        load(FIRST | {"clean": "Mary or John? I say"})
    with pytest.raises(ValueError, match=r"prompts\[0\]: .* got 0 and 0"):
        load(*[DIET] * 6, CITY)
    with pytest.raises(ValueError, match=r"prompts\[1\]: .* got 1 and 0"):
        load(FIRST, FIRST | {"clean": "Mary"})


@pytest.mark.parametrize("word_idxs", [None, {}, {"end": 14}, {"IO": 2}])
def test_an_answer_without_its_space_is_told_what_to_write(load, word_idxs):
    """Whatever else is given, the text goes on with " Mary"; no way is shown that leads nowhere."""
    with pytest.raises(ValueError, match=r"write ' Mary', as it stands there$"):
        load(FIRST | {"answers": ["Mary"]}, word_idxs=word_idxs)


def test_an_answer_behind_a_quote_has_a_way_out(load):
    """Where it may be meant without a space, word_idxs without names say so."""
    quoted = FIRST | {"clean": f'{FIRST["clean"]} "', "corrupt": f'{FIRST["corrupt"]} "'}
    record = quoted | {"answers": ["Mary"], "wrong_answers": ["John"]}
    with pytest.raises(ValueError, match='give "word_idxs" without IO, S1 and S2'):
        load(record)
    pairs = load(record, word_idxs={})
    assert pairs.roles == ("END",) and pairs.answers.tolist() == gpt2_tokenizer().encode("Mary")
