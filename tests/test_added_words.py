"""Names that a tokenizer writes in its own way: added to the vocabulary, or normalised."""

from __future__ import annotations

import unicodedata
from functools import partial

import pytest
import tokenizers
from gpt2_files import gpt2_files
from written_prompts import load_records

from ioi_fast.asked.prompt_files.whole_words import whole_words
from ioi_fast.tokenizer import Tokenizer

ADDED = ["Zorblax", "Quux"]
FORMS = [{}, {"lstrip": True}, {"rstrip": True}, {"lstrip": True, "rstrip": True}]
RECORD = {
    "clean": "When Zorblax and Quux went home, Quux gave a ring to",
    "corrupt": "When Quux and Zorblax went home, Zorblax gave a ring to",
}


@pytest.fixture
def load(tmp_path):
    return partial(load_records, tmp_path)


def with_added(**form: bool) -> Tokenizer:
    """GPT-2's tokenizer and two words that stand for themselves."""
    backend = Tokenizer.from_gpt2_files(*gpt2_files()).backend
    backend.add_tokens([tokenizers.AddedToken(word, **form) for word in ADDED])
    return Tokenizer(backend, eos="<|endoftext|>")


def tokens_at(pairs, tokenizer: Tokenizer, *, new: bool = False) -> dict[str, str]:
    tokens, roles = (pairs.new, pairs.new_roles) if new else (pairs.orig, pairs.positions)
    return {role: tokenizer.decode([int(tokens[0, at[0]])]) for role, at in roles.items()}


@pytest.mark.parametrize("form", FORMS)
def test_added_words_are_names(load, form):
    """With lstrip a token stands for the space before it as well, which its text is without."""
    tokenizer = with_added(**form)
    spaced = " " if "lstrip" in form else ""
    for space in {"", spaced}:
        record = RECORD | {"answers": [f"{space}Zorblax"], "wrong_answers": [f"{space}Quux"]}
        pairs = load(record, tokenizer=tokenizer)
        at = tokens_at(pairs, tokenizer)
        assert (at["IO"], at["S1"], at["S2"]) == ("Zorblax", "Quux", "Quux")
        assert at["S1+1"].strip() == "went" and at["END"] == " to"
        assert int(pairs.positions["S1"]) < int(pairs.positions["S2"])
        assert pairs.answers.tolist() == [50257] and pairs.wrong_answers.tolist() == [50258]
        there = tokens_at(pairs, tokenizer, new=True)
        assert (there["IO"], there["S1"], there["S2"]) == ("Quux", "Zorblax", "Zorblax")


@pytest.mark.parametrize("form", FORMS)
def test_added_words_and_positions_of_ones_own(load, form):
    tokenizer = with_added(**form)
    record = RECORD | {"answers": ["Zorblax"], "wrong_answers": ["Quux"]}
    assert load(record, tokenizer=tokenizer, word_idxs={}).roles == ("END",)
    at = tokenizer.encode(RECORD["clean"]).index(50257)
    pairs = load(record, tokenizer=tokenizer, word_idxs={"IO": at})
    assert pairs.positions["IO"].tolist() == [at]
    with pytest.raises(ValueError, match=r"prompts\[0\]: word_idxs IO is 0, .* has 'When', not"):
        load(record, tokenizer=tokenizer, word_idxs={"IO": 0})


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("inside", ["JoZorblax", "Zorblaxes", "O'Zorblax", "Zorblax-Ann"])
def test_an_added_word_within_another_is_none(form, inside):
    tokenizer = with_added(**form)
    text = f"When {inside} met Ann"
    assert whole_words(tokenizer, tokenizer.encode(text), "Zorblax", text) == []


@pytest.mark.parametrize("file", ["NFD", "NFC"])
def test_names_that_are_normalised(load, file):
    """José in two characters or in one for the accent, of a tokenizer that takes both for one."""
    backend = Tokenizer.from_gpt2_files(*gpt2_files()).backend
    backend.normalizer = tokenizers.normalizers.NFC()
    tokenizer = Tokenizer(backend, eos="<|endoftext|>")
    clean = "When José and Mary went home, Mary saw JoséMary. Then Mary gave a ring to"
    record = {
        "clean": clean, "corrupt": clean, "answers": [" José"], "wrong_answers": [" Mary"],
    }  # fmt: skip
    written = {
        key: unicodedata.normalize(file, value)
        if isinstance(value, str)
        else [unicodedata.normalize(file, value[0])]
        for key, value in record.items()
    }
    pairs = load(written, tokenizer=tokenizer)
    at = tokens_at(pairs, tokenizer)
    assert at == {"IO": " José", "S1": " Mary", "S1+1": " went", "S2": " Mary", "END": " to"}
    assert tokenizer.encode(clean)[int(pairs.positions["S2"]) + 1] == tokenizer.encode(" gave")[0]
    last = written | {"answers": [written["answers"][0]], "wrong_answers": [" John"]}
    with pytest.raises(ValueError, match=r"prompts\[0\]: .* got 1 and 0"):
        load(last, tokenizer=tokenizer)
