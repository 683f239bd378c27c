"""Changes of a file, drawn by hypothesis: of the values that it holds, or of its bytes."""

from __future__ import annotations

import copy
import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

IN_VALUES = ("replace", "remove", "rename", "insert", "swap")
IN_BYTES = ("set", "cut", "drop", "repeat", "put")
_DEEP = [[[[[[[[[[{"a": [[[[[[[[]]]]]]]]}]]]]]]]]]]
ODD: list[Any] = [
    *(None, True, False, 0, 1, -1, 1.5, 2**31, 2**63, 10**18, 10**400, 1e308, float("nan")),
    *("", " ", "x", "0", "\ud800", "\x1b[31m\n", "é日🙂", "a" * 9999, "9" * 400),
    *("..", "/", "/etc/passwd", "../outside/model.safetensors", "../outside/tokenizer.json"),
    *("9.9", "0.0", "0.0.k", "END", "all", "S1+1", "<s>", "gelu", "relu", "F64", "I8"),
    *([], [[]], {}, {"": []}, [0, 0], [0, 2**62], _DEEP),
]


@dataclass(frozen=True, slots=True)
class Edit:
    """What to do, where (numbers that choose a key at each level, or bytes), and with what."""

    how: str
    where: tuple[int, ...]
    value: Any


def edits() -> st.SearchStrategy[list[Edit]]:
    """One to three changes of a file."""
    values = st.one_of(
        st.sampled_from(ODD),
        st.integers(-3, 70),
        st.floats(),
        st.text(max_size=6),
        st.lists(st.integers(-2, 70), max_size=4),
    )
    in_values = st.sampled_from(IN_VALUES)
    # Most files with a changed byte are no JSON: fewer of them tell as much.
    how = st.one_of(in_values, in_values, in_values, st.sampled_from(IN_BYTES))
    where = st.lists(st.integers(0, 2**16), min_size=1, max_size=6).map(tuple)
    return st.lists(st.builds(Edit, how, where, values), min_size=1, max_size=3)


def edited_files(
    raw: dict[str, bytes], kinds: dict[str, str], changes: list[Edit]
) -> dict[str, bytes]:
    """Files of kinds after changes, each in the file that the last number of its place chooses."""
    names = list(raw)
    chosen = [names[change.where[-1] % len(names)] for change in changes]
    return {
        name: edited(
            raw[name], kinds[name], [c for c, at in zip(changes, chosen, strict=True) if at == name]
        )
        for name in names
    }


def edited(raw: bytes, kind: str, changes: list[Edit]) -> bytes:
    """The bytes of a file of a kind ("json", "safetensors", "csv", "lines") after changes."""
    unpack, pack = _FORMS[kind]
    content = copy.deepcopy(unpack(raw))
    for change in changes:
        if change.how in IN_VALUES:
            content = _in_values(content, change)
    raw = pack(content, raw)
    for change in changes:
        if change.how in IN_BYTES:
            raw = _in_bytes(raw, change)
    return raw


def _keys(content: Any) -> list[Any]:
    if isinstance(content, dict):
        return list(content)
    return list(range(len(content))) if isinstance(content, list) else []


def _in_values(content: Any, change: Edit) -> Any:
    """The content with one place changed: as deep as `where` has numbers, or values have keys."""
    outer, key = None, None
    inner = content
    value = copy.deepcopy(change.value)  # a later change may be made inside it
    for number in change.where:
        keys = _keys(inner)
        if not keys or (outer is not None and number % 8 == 0):
            break
        outer, key = inner, keys[number % len(keys)]
        inner = outer[key]
    if outer is None:
        return value
    _at_key(outer, key, change, value)
    return content


def _at_key(outer: Any, key: Any, change: Edit, value: Any) -> None:
    if change.how == "remove":
        del outer[key]
    elif change.how == "rename" and isinstance(outer, dict):
        outer[_name(value)] = outer.pop(key)
    elif change.how == "insert" and isinstance(outer, dict):
        outer[_name(value)] = copy.deepcopy(outer[key])
    elif change.how == "insert":
        outer.insert(key, value)
    elif change.how == "swap":
        other = _keys(outer)[change.where[-1] % len(outer)]
        outer[key], outer[other] = outer[other], outer[key]
    else:
        outer[key] = value


def _name(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _in_bytes(raw: bytes, change: Edit) -> bytes:
    at = change.where[0] % max(len(raw), 1)
    end = at + change.where[-1] % 40
    if change.how == "set":
        return raw[:at] + bytes([change.where[-1] % 256]) + raw[at + 1 :]
    if change.how == "cut":
        return raw[:at]
    if change.how == "drop":
        return raw[:at] + raw[end:]
    if change.how == "repeat":
        return raw[:at] + raw[at:end] * (2 + change.where[-1] % 200) + raw[end:]
    return raw[:at] + json.dumps(change.value).encode() + raw[at:]


def _of_safetensors(raw: bytes) -> Any:
    return json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])


def _as_safetensors(content: Any, raw: bytes) -> bytes:
    header = json.dumps(content).encode()
    data = raw[8 + int.from_bytes(raw[:8], "little") :]
    return len(header).to_bytes(8, "little") + header + data


def _as_csv(content: Any, raw: bytes) -> bytes:
    text = io.StringIO()
    rows = content if isinstance(content, list) else [content]
    csv.writer(text).writerows(row if isinstance(row, list) else [row] for row in rows)
    return text.getvalue().encode("utf-8", "surrogatepass")


def _as_lines(content: Any, raw: bytes) -> bytes:
    lines = content if isinstance(content, list) else [content]
    return "\n".join(map(str, lines)).encode("utf-8", "surrogatepass")


_FORMS: dict[str, tuple[Callable[[bytes], Any], Callable[[Any, bytes], bytes]]] = {
    "json": (json.loads, lambda content, raw: json.dumps(content).encode()),
    "safetensors": (_of_safetensors, _as_safetensors),
    "csv": (lambda raw: list(csv.reader(io.StringIO(raw.decode()))), _as_csv),
    "lines": (lambda raw: raw.decode().split("\n"), _as_lines),
}
