"""The tokenizer: each way to read one gives GPT-2's ids; words that are not tokens are named."""

from __future__ import annotations

import json
import shutil

import pytest
import tokenizers
from gpt2_files import gpt2_files, gpt2_tokenizer

from ioi_fast.tokenizer import (
    Tokenizer,
    bos_id,
    check_codec,
    padding_id,
    plain_ids,
    single_token,
)

# Published ids of GPT-2's vocabulary.
KNOWN = {" Mary": [5335], " John": [1757], "Hello world": [15496, 995], " to": [284]}
TEXTS = [
    "Then, Mary and John went.",
    "  two  spaces\n\ttab",
    "naïve — “quotes” 日本 🙂",
    "it's",
    "",
]


def test_original_files_give_the_published_ids():
    tokenizer = gpt2_tokenizer()
    assert tokenizer.vocab_size == 50257
    assert tokenizer.eos_id == 50256
    assert {text: tokenizer.encode(text) for text in KNOWN} == KNOWN


@pytest.mark.parametrize("text", TEXTS)
def test_round_trip(text):
    tokenizer = gpt2_tokenizer()
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_end_of_text_is_one_token_and_survives_decoding():
    tokenizer = gpt2_tokenizer()
    assert tokenizer.encode("a<|endoftext|>b") == [64, 50256, 65]
    assert tokenizer.decode([64, 50256, 65]) == "a<|endoftext|>b"


def test_directory_with_tokenizer_json(tmp_path):
    gpt2_tokenizer().backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.from_directory(tmp_path)
    assert tokenizer is not None and tokenizer.encode(" Mary met John") == [5335, 1138, 1757]


def test_directory_with_the_two_files(tmp_path):
    encoder, merges = gpt2_files()
    shutil.copy(encoder, tmp_path / "vocab.json")
    assert Tokenizer.from_directory(tmp_path) is None  # one file alone is no tokenizer
    shutil.copy(merges, tmp_path / "merges.txt")
    tokenizer = Tokenizer.from_directory(tmp_path)
    assert tokenizer is not None and tokenizer.eos_id == 50256
    for text in TEXTS:
        assert tokenizer.encode(text) == gpt2_tokenizer().encode(text)


def test_directory_prefers_tokenizer_json(tmp_path):
    encoder, merges = gpt2_files()
    shutil.copy(encoder, tmp_path / "vocab.json")
    shutil.copy(merges, tmp_path / "merges.txt")
    small = tokenizers.Tokenizer(tokenizers.models.BPE(vocab={"a": 0, "b": 1}, merges=[]))
    small.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.from_directory(tmp_path)
    assert tokenizer is not None and tokenizer.encode("ab<|endoftext|>") == [0, 1]
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')  # the class has a BOS
    tokenizer = Tokenizer.from_directory(tmp_path)
    assert tokenizer is not None and tokenizer.encode("ab<|endoftext|>") == [0, 1, 2]


def test_directory_without_files_gives_none(tmp_path):
    assert Tokenizer.from_directory(tmp_path) is None


def test_broken_files_are_named(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{", "utf-8")
    with pytest.raises(ValueError, match=r"tokenizer\.json is not valid JSON"):
        Tokenizer.from_directory(tmp_path)
    (tmp_path / "vocab.json").write_text(json.dumps({"a": 0}), "utf-8")
    (tmp_path / "merges.txt").write_text("a b\n", "utf-8")
    with pytest.raises(ValueError, match=r"vocab\.json and .*merges\.txt are not a BPE"):
        Tokenizer.from_gpt2_files(tmp_path / "vocab.json", tmp_path / "merges.txt")


def test_wrong_arguments_are_named():
    tokenizer = gpt2_tokenizer()
    with pytest.raises(TypeError, match=r"backend must be a tokenizers\.Tokenizer, got str"):
        Tokenizer("gpt2")
    with pytest.raises(ValueError, match="bos: '<s>' is not in the vocabulary"):
        Tokenizer(tokenizer.backend, bos="<s>")
    with pytest.raises(TypeError, match="text must be a str, got bytes"):
        tokenizer.encode(b"x")
    with pytest.raises(ValueError, match="50257 is out of range, the vocabulary has 50257"):
        tokenizer.decode([50257])
    with pytest.raises(ValueError, match="-1 is out of range"):
        tokenizer.decode([-1])


def test_tokenizer_without_end_of_text():
    bare = Tokenizer(tokenizers.Tokenizer(tokenizers.models.BPE(vocab={"a": 0}, merges=[])))
    assert bare.eos_id is None and bare.bos_id is None and padding_id(bare) == 0
    with pytest.raises(ValueError, match="prepend_bos: the tokenizer Tokenizer has no BOS"):
        bos_id(bare)


def test_single_token_names_word_and_pieces():
    tokenizer = gpt2_tokenizer()
    assert single_token(tokenizer, " Mary", "name") == 5335
    with pytest.raises(ValueError, match=r"name ' Zyxwv' must be a single token, got \d: \[' Z'"):
        single_token(tokenizer, " Zyxwv", "name")
    with pytest.raises(ValueError, match=r"name '' must be a single token, got 0: \[\]"):
        single_token(tokenizer, "", "name")


def test_other_tokenizers_are_taken():
    class Foreign:
        eos_token_id = 7

        def encode(self, text):
            return [1]

        def decode(self, ids):
            return "x"

    check_codec(Foreign())
    assert padding_id(Foreign()) == 7
    assert bos_id(gpt2_tokenizer()) == padding_id(gpt2_tokenizer()) == 50256
    with pytest.raises(ValueError, match="Foreign has no BOS"):
        bos_id(Foreign())
    with pytest.raises(TypeError, match=r"got a tokenizers\.Tokenizer: wrap it"):
        check_codec(gpt2_tokenizer().backend)
    with pytest.raises(TypeError, match=r"NoneType has no encode .*this model has no tokenizer"):
        check_codec(None)


def test_wrappers_and_methods_of_other_libraries():
    class Wrapper:  # hands on what it is given, as wrappers of transformers' tokenizers do
        def encode(self, text, **how):
            return [50256] * how.get("add_special_tokens", True) + gpt2_tokenizer().encode(text)

        def decode(self, ids):
            return gpt2_tokenizer().decode(ids)

        def bos_id(self):  # SentencePiece's way to tell them; -1 stands for none
            return 50256

        def eos_id(self):
            return -1

    assert plain_ids(Wrapper(), " Mary") == [5335]
    assert bos_id(Wrapper()) == 50256 and padding_id(Wrapper()) == 0
