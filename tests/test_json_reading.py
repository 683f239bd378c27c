"""JSON from elsewhere: what is refused, with file and place, in bounded time, memory and words."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ioi_fast.asked.circuit_files import load_circuit
from ioi_fast.commands.finding_files import stored
from ioi_fast.model.checkpoint import load
from ioi_fast.outside.json_files import parse_json, read_json, read_json_object
from ioi_fast.outside.quoting import cut, quoted

NESTED = '{"a": [{"b": %s}]}'
IN_B = " in ['a'][0]['b']"
REFUSED = {
    "a key twice": ('{"x": {"n": 1, "m": 2, "n": 1}}', "'n' is given twice in ['x']"),
    "a key twice in a list": ('[1, {"n": 1, "n": 2}]', "'n' is given twice in [1]"),
    "at the top": ('{"n": 1, "n": 1}', "f.json: 'n' is given twice"),
    "brackets": ("[" * 100_000, "more than 100 brackets are open at line 1 column 101"),
    "closed brackets": ("[" * 500 + "]" * 500, "at line 1 column 101"),
    "objects in a text": ('{"[[[": \n' + '{"a":' * 101 + "1" + "}" * 102, "line 2 column 496"),
    "half a pair": (NESTED % r'"\ud800"', r"'\ud800' holds half a surrogate pair" + IN_B),
    "half a pair as a key": (r'{"x": {"\udc00": 1}}', r"'\udc00' holds half"),
    "the other half": (NESTED % r'"\ude00\ud83d"', "holds half a surrogate pair" + IN_B),
    "a long int": (NESTED % ("9" * 400), "has 400 digits" + IN_B),
    "a very long int": (NESTED % ("9" * 10**6), "has 1000000 digits" + IN_B),
    "a negative int": (NESTED % ("-" + "9" * 400), "has 401 digits" + IN_B),
    "a long float": (NESTED % ("1." + "0" * 400), "has 402 digits" + IN_B),
    "a large float": (NESTED % "1e999", "1e999 is too large" + IN_B),
    "Infinity": (NESTED % "Infinity", "Infinity is no number in JSON" + IN_B),
    "-Infinity": (NESTED % "-Infinity", "-Infinity is no number in JSON" + IN_B),
    "NaN": (NESTED % "NaN", "NaN is no number in JSON" + IN_B),
    "a mark": ("\ufeff{}", "line 1 begins with a byte order mark"),
    "not UTF-8": (b'{"a": "\xff"}', "can't decode byte 0xff in position 7"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "is not valid JSON"),
    "empty": ("", "is not valid JSON: Expecting value: line 1 column 1"),
    "half": ('{"a": 1', "is not valid JSON: Expecting ',' delimiter: line 1 column 8"),
    "two": ("{} {}", "Extra data: line 1 column 4"),
    "zeros": (b"\0" * 1000, "is not valid JSON"),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "f.json"


def refusal(read: Callable[[Path], object], file: Path) -> str:
    """What a reader says in refusing a file: with its name, below 2 KB, one line, within 2 s."""
    begun = time.process_time()
    with pytest.raises(ValueError) as caught:
        read(file)
    assert time.process_time() - begun < 2
    said = str(caught.value)
    assert str(file) in said and len(said.encode()) < 2048 and said.isprintable()
    return said


def written(file: Path, content: str | bytes) -> Path:
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


@pytest.mark.parametrize(("content", "said"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(content: str | bytes, said: str, file: Path) -> None:
    assert said in refusal(read_json, written(file, content))


@pytest.mark.parametrize("content", ["[1]", "null", "3", '"x"'])
def test_an_object_is_expected(content: str, file: Path) -> None:
    assert "must hold a JSON object, got" in refusal(read_json_object, written(file, content))


def test_what_is_sound_is_read_as_json_reads_it(file: Path) -> None:
    deep = json.loads("[" * 100 + "]" * 100)
    content = {"a": [1, -2.5e-300, True, None, "\U0001f600 é", 10**30], "": {"b": {}}, "d": deep[0]}
    written(file, json.dumps(content))
    assert read_json_object(file) == read_json(file) == content
    assert parse_json(r'["\ud83d\ude00", "\\ud800", 9]', "text") == ["\U0001f600", r"\ud800", 9]


def test_a_huge_file_is_not_read(file: Path) -> None:
    with file.open("wb") as empty:
        empty.truncate(2**40)
    assert "at most 32 MiB are read" in refusal(read_json, file)


def test_sixty_thousand_keys_given_twice(file: Path) -> None:
    keys = ", ".join(f'"{i}": 1' for i in [*range(60_000), 59_999])
    assert "'59999' is given twice" in refusal(read_json, written(file, f"{{{keys}}}"))


def _config(file: Path) -> None:
    written(file.with_name("config.json"), file.read_bytes())
    try:
        load(file.parent)
    except ValueError as error:
        raise ValueError(str(error).replace("config.json", "f.json")) from error


def _finding(file: Path) -> None:
    stored(file, "key")


LONG = "\u20ac\x1b[2J" * 10**5
MEGABYTES = {
    "a setting": ({"n_head": LONG}, _config),
    "a setting's name": ({LONG: 5}, _config),
    "a list": ({"n_head": [[LONG] * 3] * 5}, _config),
    "a model type": ({"model_type": {LONG: LONG}}, _config),
    "a contradiction": ({"n_head": LONG, "num_attention_heads": [LONG]}, _config),
    "an activation": ({"activation_function": LONG}, _config),
    "a large integer": ({"n_head": 7 * 10**200, "n_embd": 10**200}, _config),
    "a circuit's key": ({LONG: 1, "heads": {}}, load_circuit),
    "a head": ({"heads": {LONG: "END"}}, load_circuit),
    "a head of many digits": ({"heads": {"9" * 5000 + ".1": "END"}}, load_circuit),
    "a role": ({"heads": {"1.1": [LONG, LONG]}}, load_circuit),
    "a class": ({"heads": {}, "classes": {LONG: [LONG]}}, load_circuit),
    "an edge": ({"heads": {}, "edges": [[LONG, LONG]]}, load_circuit),
    "an edge's receiver": ({"heads": {"0.0": "END"}, "edges": [["0.0", LONG]]}, load_circuit),
    "a finding's key": ({"key": [LONG]}, _finding),
    "a measure": ({"key": "key", "measures": [{LONG: LONG}], "figures": []}, _finding),
    "a figure": ({"key": "key", "measures": [], "figures": [{"kind": LONG}]}, _finding),
}


@pytest.mark.parametrize(("content", "read"), MEGABYTES.values(), ids=MEGABYTES)
def test_a_message_is_short_whatever_it_is_about(content: dict, read, file: Path) -> None:
    refusal(read, written(file, json.dumps(content)))


@pytest.mark.parametrize(
    "heads", [{"9.9": "all"}, {"9.9": ""}, {"9.9": "each"}, {"9.9": ["END", ""]}]
)
def test_a_head_is_kept_at_roles_alone(heads: dict, file: Path) -> None:
    said = refusal(load_circuit, written(file, json.dumps({"heads": heads})))
    assert "heads[9.9] must be roles like 'END'" in said


@pytest.mark.parametrize(
    "found",
    [
        [],
        {},
        {"heads": []},
        {"heads": None},
        {"heads": {"9": "END"}},
        {"heads": {"mlp3": "END"}},
        {"heads": {"9.9": None}},
        {"heads": {"9.9": []}},
        {"heads": {"9.9": [["END"]]}},
        {"heads": {"9.9": "END", "09.9": "END"}},
        {"heads": {}, "classes": []},
        {"heads": {}, "classes": {"a": "9.9"}},
        {"heads": {}, "classes": {"a": ["9.9"]}},
        {"heads": {"9.9": "END"}, "classes": {"a": [["9.9"]]}},
        {"heads": {}, "edges": {"a": "b"}},
        {"heads": {}, "edges": ["ab"]},
        {"heads": {}, "edges": [["mlp3", {}]]},
        {"heads": {}, "edges": [["mlp3", "mlp2"]]},
        {"heads": {}, "edges": [["mlp1", "logits"], ["mlp1", "logits"]]},
    ],
)
def test_what_is_no_circuit(found: object, file: Path) -> None:
    refusal(load_circuit, written(file, json.dumps(found)))


def test_values_in_messages() -> None:
    assert quoted({"a": [1, "b"]}) == "{'a': [1, 'b']}" and quoted(None) == "None"
    assert quoted(10**5000) == "an integer of about 5000 digits"
    assert quoted("\x1b\n\u20ac") == repr("\x1b\n\u20ac") and cut("a\u202eb\x00") == r"a\u202eb\x00"
    for value in ("x" * 10**7, ["y" * 10**6] * 10**5, {str(i): i for i in range(10**5)}):
        assert len(quoted(value)) <= 120
    assert cut("a" * 300 + "b" * 300).startswith("aaa") and cut("a" * 300 + "b" * 300)[-3:] == "bbb"
