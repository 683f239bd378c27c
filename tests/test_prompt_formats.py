"""Prompt files of other tools, with a BOS, with one END: read or refused."""

from __future__ import annotations

import json
import re
from functools import partial

import pytest
from gpt2_files import gpt2_tokenizer
from written_prompts import FIRST, load_records, refused, words_at

from ioi_fast import load as load_model
from ioi_fast.asked.prompt_files import load_prompts
from ioi_fast.cli import main

GRASS = {
    "clean": "The cows ate some",
    "corrupt": "The cats ate some",
    "answers": [" grass"],
    "wrong_answers": [" mice"],
}
VIENNA = {
    "clean": "The capital of Austria is the city of",
    "corrupt": "The capital of Ireland is the city of",
    "answers": [" Vienna"],
    "wrong_answers": [" Dublin"],
}


@pytest.fixture
def load(tmp_path):
    return partial(load_records, tmp_path)


# One index for all records


def test_word_idxs_without_end(load):
    pairs = load(GRASS, VIENNA, word_idxs={"the": 0, "noun": 1})
    assert pairs.roles == ("the", "noun", "END") and pairs.end.tolist() == [3, 7]


@pytest.mark.parametrize(
    ("records", "end", "index", "tokens"),
    [((GRASS, VIENNA), 3, 1, 8), ((VIENNA, GRASS), 3, 0, 8), ((VIENNA, GRASS), 7, 1, 4)],
)
def test_one_end_does_not_serve_prompts_of_several_lengths(load, records, end, index, tokens):
    message = rf'prompts\[{index}\]: "clean" has {tokens} tokens, word_idxs end is {end}'
    with pytest.raises(ValueError, match=message):
        load(*records, word_idxs={"end": end})


COUNTED_WITH_BOS = [
    {"IO": 3, "S1": 5, "S2": 11, "end": 15, "starts": 1, "punct": 10},
    {"IO": 3, "S1": 5, "S2": 11},
    {"BOS": 0, "S2": 11},
    {"end": 15},
]


@pytest.mark.parametrize("word_idxs", COUNTED_WITH_BOS)
@pytest.mark.parametrize("bos", [False, True])
def test_indices_that_count_bos_are_asked_about(load, word_idxs, bos):
    with pytest.raises(ValueError, match=r"prompts\[0\]: .*: counted with BOS\? .* take 1 from"):
        load(FIRST, word_idxs=word_idxs, prepend_bos=bos)
    without = {role: max(0, index - 1) for role, index in word_idxs.items()}
    pairs = load(FIRST, word_idxs=without, prepend_bos=bos)
    assert {**words_at(pairs, 0), "S2": " John"} == {"S2": " John", **words_at(pairs, 0)}
    assert int(pairs.end) == 14 + bos


def test_other_wrong_indices_are_not_taken_for_those(load):
    for wrong in ({"IO": 4, "end": 14}, {"IO": 3, "S1": 4}, {"end": 16}):
        with pytest.raises(ValueError, match=r"prompts\[0\]: ") as caught:
            load(FIRST, word_idxs=wrong)
        assert "BOS" not in str(caught.value)


# A BOS that is written out

WRITTEN = {key: f"<|endoftext|>{FIRST[key]}" for key in ("clean", "corrupt")}


@pytest.mark.parametrize("prepend_bos", [False, True])
@pytest.mark.parametrize("word_idxs", [None, {"IO": 2, "S1": 4, "S1+1": 5, "S2": 10, "end": 14}])
def test_a_written_bos_stays_one(load, prepend_bos, word_idxs):
    pairs = load(FIRST | WRITTEN, prepend_bos=prepend_bos, word_idxs=word_idxs)
    plain = load(FIRST, prepend_bos=True, word_idxs=word_idxs)
    assert pairs.token_hash() == plain.token_hash()
    assert words_at(pairs, 0)["IO"] == " Mary" and pairs.orig[0].tolist().count(50256) == 1


def test_a_bos_in_some_texts(load):
    pairs = load(FIRST, FIRST | WRITTEN, prepend_bos=True)
    assert pairs.orig[0].tolist() == pairs.orig[1].tolist()
    half = FIRST | {"clean": WRITTEN["clean"]}
    assert load(half, prepend_bos=True).token_hash() == load(FIRST, prepend_bos=True).token_hash()
    with pytest.raises(ValueError, match=r"prompts\[1\]: one of clean and corrupt begins with BOS"):
        load(FIRST, half)
    with pytest.raises(ValueError, match=r'prompts\[0\]: "clean" must have at least one token'):
        load(FIRST | {"clean": "<|endoftext|>"})


def test_longer_corrupt_names_behind_a_written_bos(load):
    corrupt = "Then, Paul and Zyxwv walked to the store. Sarah handed a ring to"
    plain = load(FIRST | {"corrupt": corrupt}, prepend_bos=True)
    written = WRITTEN | {"corrupt": f"<|endoftext|>{corrupt}"}
    assert load(FIRST | written).token_hash() == plain.token_hash()


# Other tools


@pytest.mark.parametrize("key", ["answers", "wrong_answers"])
def test_sets_of_answers_point_to_a_metric(load, key):
    with pytest.raises(ValueError, match=rf'prompts\[1\]: "{key}" .* got 3: .* metric of your own'):
        load(GRASS, GRASS | {key: [" a", " b", " c"]})


def test_token_ids_point_to_prompt_pairs(load):
    with pytest.raises(ValueError, match=r'"clean" must be a text, got \[3, 0\].*PromptPairs'):
        load(GRASS | {"clean": [3, 0]})


MIB = {
    "prompt": FIRST["clean"],
    "choices": ["Mary", "John"],
    "answerKey": 0,
    "abc_counterfactual": {"prompt": FIRST["corrupt"], "choices": ["Paul", "Lisa"]},
}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([MIB, MIB]),
        json.dumps(MIB),
        f"{json.dumps(MIB)}\n{json.dumps(MIB)}\n",
        json.dumps({"prompts": [MIB]}),
        json.dumps({"rows": [{"row": MIB}]}),
    ],
)
def test_rows_of_mib_say_what_to_do(tmp_path, text):
    message = refused(tmp_path, text)
    assert 'write {"prompts": [{"clean": text' in message and "answerKey" in message


def test_tables_in_parquet_say_what_to_do(tmp_path):
    message = refused(tmp_path, b"PAR1\x15\x04\xff\xfe", "test-00000-of-00001.parquet")
    assert "A Parquet file is not read" in message and '{"prompts": [{"clean"' in message


CSV = 'clean,corrupted,corrupted_hard,correct_idx,incorrect_idx\n"{}","{}",x,{},{}\n'


def test_a_csv_of_names(tmp_path, load):
    path = tmp_path / "ioi.CSV"
    row = CSV.format(FIRST["clean"], FIRST["corrupt"], 5335, 1757)
    path.write_text("\ufeff" + row)
    pairs = load_prompts(path, gpt2_tokenizer(), prepend_bos=True)
    assert pairs.token_hash() == load(FIRST, prepend_bos=True).token_hash()


BAD_CSV = [
    (CSV.format(FIRST["clean"], "x", 5335, 47764), r"row 0: incorrect_idx 47764 is ' df' here"),
    (CSV.format(FIRST["clean"], "x", 50257, 1757), "correct_idx 50257 is no text here"),
    (CSV.format(FIRST["clean"], "x", "5335.0", 1757), "correct_idx must be a token id"),
    (CSV.format(FIRST["clean"], "x", '"[5335, 100]"', 1757), "be a token id.*metric of your own"),
    (CSV.format(FIRST["clean"], "x", 5335, "1757 100"), "be a token id.*metric of your own"),
    (CSV.format("", "x", 5335, 1757), 'row 0: "clean" must be a text'),
    (CSV.format("Mary and John", "x", 5335, 1757) + "y,z\n", "row 1 must have as many fields"),
    ("clean,corrupted,label\nx 13,y 13,52\n", "one column correct_idx.*metric of your own"),
    ("clean,corrupted,country_idx,corrupted_country_idx\nx,y,1,2\n", "one column correct_idx"),
    ("clean,clean,corrupted,correct_idx,incorrect_idx\n", "one column clean"),
    ("clean,corrupted,correct_idx,incorrect_idx\n", "at least one row"),
    ("", "one column clean, got"),
    ('clean,corrupted,correct_idx,incorrect_idx\n"x,y', "is not a CSV file"),
    (b"clean\xff", "is not UTF-8"),
]


@pytest.mark.parametrize(("text", "message"), BAD_CSV)
def test_csv_files_that_are_refused(tmp_path, text, message):
    found = refused(tmp_path, text, "rows.csv")
    assert re.search(message, found, re.DOTALL), found


def test_the_command_line_reads_both(tmp_path, capsys):
    table, json_file = tmp_path / "names.csv", tmp_path / "names.json"
    json_file.write_text(json.dumps({"prompts": [FIRST]}))
    asked = ["path-patch", "--quiet", "--plan", "--prompts"]
    ids = [load_model("demo").tokenizer.encode(text)[0] for text in (" Mary", " John")]
    table.write_text(CSV.format(FIRST["clean"], FIRST["corrupt"], *ids))
    plans = []
    for path in (table, json_file):
        assert main([*asked, str(path)]) == 0
        plans.append(capsys.readouterr().out)
    assert plans[0] == plans[1] != ""
