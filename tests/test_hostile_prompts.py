"""Prompt files that are broken or hostile: refused in few words and in time, or read right."""

from __future__ import annotations

import json
import time
from functools import partial

import pytest
from gpt2_files import gpt2_tokenizer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from written_prompts import FIRST, load_records, refused, words_at

from ioi_fast.asked.prompt_files import load_prompts


@pytest.fixture
def load(tmp_path):
    return partial(load_records, tmp_path)


ONE = json.dumps(FIRST)
HOSTILE = [
    '{"prompts": ' + "[" * 100_000,
    '{"prompts": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "{" + ", ".join(f'"k{i % 30_000}": 0' for i in range(60_000)) + "}",
    '{"prompts": [' + ONE.replace(" Mary", " \\ud800", 1) + "]}",
    '{"prompts": [' + ONE.replace('[" Mary', '[" \\udfff') + "]}",
    '{"prompts": [' + ONE + '], "word_idxs": {"\\ud800": 1}}',
    '{"prompts": [' + ONE + '], "word_idxs": {"end": ' + "9" * 400 + "}}",
    '{"prompts": [' + ONE + '], "word_idxs": {"end": ' + "9" * 5_000 + "}}",
    '{"prompts": [' + ONE + '], "word_idxs": {"' + "x" * 100_000 + '": 99}}',
    '{"prompts": [' + ONE + '], "word_idxs": {"' + "x" * 100_000 + '": -1}}',
    '{"prompts": [' + ONE.replace('[" Mary', '["' + "\\u0000" * 9_000) + "]}",
    '{"prompts": [' + ONE.replace('[" Mary', '["' + "😀" * 9_000) + "]}",
    '{"prompts": [' + ONE.replace('[" Mary"', "[" + "[0]," * 9_000 + "0") + "]}",
    '{"prompts": [' + ONE.replace('" Mary"', "1e999") + "]}",
    '{"prompts": ' + "9" * 400 + "}",
    '{"prompts": [' + json.dumps(FIRST | {"clean": {"a": "b" * 9_000}}) + "]}",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_files_are_refused_shortly(tmp_path, text):
    began = time.monotonic()
    refused(tmp_path, text)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("role", ["", "all", "each"])
def test_words_that_are_no_roles_are_refused(tmp_path, role):
    text = json.dumps({"prompts": [FIRST], "word_idxs": {role: 3}})
    assert f'word_idxs["{role}"]' in refused(tmp_path, text)


def test_a_name_that_stands_very_often_is_found_in_time(load):
    """Four times the text takes about four times the work, not sixteen."""

    def seconds(times: int) -> float:
        clean = FIRST["clean"] + " John Mary" * times
        began = time.process_time()  # other processes do not count
        pairs = load(FIRST | {"clean": clean, "corrupt": clean})
        assert int(pairs.positions["S2"]) == int(pairs.end) - 1
        return time.process_time() - began

    seconds(100)
    assert seconds(8_000) < 9 * seconds(2_000)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
PIECES = [" Mary", " John", "John", "Ann", "'s", "-", ",", " to", " ", "\n", "é", "😀", "\u0301"]
TEXTS = st.lists(st.sampled_from(["<|endoftext|>", *PIECES]), min_size=1, max_size=9).map("".join)
ANSWERS = st.sampled_from([" Mary", "Mary", " John", "John", "Ann", " to", "", " ", "\n"])
FIELDS = {
    "clean": TEXTS,
    "corrupt": TEXTS,
    "answers": st.just([" Mary"]) | st.lists(ANSWERS, min_size=1, max_size=2),
    "wrong_answers": st.just([" John"]) | st.lists(ANSWERS, min_size=1, max_size=2),
}
RECORDS = st.fixed_dictionaries(FIELDS)
ODD = st.dictionaries(st.sampled_from(list(FIELDS)), ANY) | ANY
ROLES = st.sampled_from(["IO", "S1", "S2", "S1+1", "end", "END", "all", "x"])


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    records=st.lists(RECORDS, min_size=1, max_size=2) | st.lists(RECORDS | ODD, max_size=3),
    word_idxs=st.none() | st.dictionaries(ROLES, st.integers(0, 6), max_size=3) | ANY,
    bos=st.booleans(),
)
def test_any_file_is_read_right_or_refused(tmp_path, records, word_idxs, bos):
    path = tmp_path / "any.json"
    path.write_text(json.dumps({"prompts": records, "word_idxs": word_idxs}))
    try:
        pairs = load_prompts(path, gpt2_tokenizer(), prepend_bos=bos)
    except ValueError as error:
        assert str(path) in str(error) and len(str(error).encode()) < 2000
        return
    for row, record in enumerate(records):
        words = words_at(pairs, row)
        named = {"IO": "answers", "S1": "wrong_answers", "S2": "wrong_answers"}
        for role in words.keys() & named.keys():
            (answer,) = record[named[role]]
            assert words[role] in {answer, answer.removeprefix(" ")}
        ids = gpt2_tokenizer().encode(record["clean"])
        end = int(pairs.end[row])
        whole = [50256, *ids] if bos and ids[0] != 50256 else ids
        assert pairs.orig[row, : end + 1].tolist() == whole[: end + 1]
        assert end == len(whole) - 1 or "end" in word_idxs
