"""What draws and plants faults finds each kind of them, and plants nothing where a file changed."""

from __future__ import annotations

import ast

import pytest
from planted_faults.drawing import ROOT, Fault, draw
from planted_faults.places import KINDS, places_in_python
from planted_faults.places_in_cpp import places_in_cpp

PYTHON = '''
def f(x: int | None, rows):
    """Says - nothing."""
    if x < 3 and not rows:
        raise ValueError(f"a" + "b")
    rows[0] += x - 1
    isinstance(x, int | str)
    return rows[1:, 2]
'''
CPP = """
// a - b
void f(const float* x, int64_t n) {
  for (int64_t i = 0; i < n - 1; ++i) {
    if (x[0] == 1 && n > 2) store(x, i);  // a + b
  }
}
"""


def planted(text: str, places: list) -> dict[str, set[str]]:
    """By kind, what stands in place of what."""
    found: dict[str, set[str]] = {}
    for one in places:
        before = text.encode()[one.start : one.stop].decode()
        found.setdefault(one.kind, set()).add(f"{before} -> {one.after}")
    return found


def test_every_kind_of_fault_in_python() -> None:
    assert planted(PYTHON, places_in_python(PYTHON)) == {
        "comparison": {"< -> <="},
        "mask": {"and -> or", "not  -> "},
        "sign": {"- -> +"},
        "index": {"0 -> 1", "1 -> 2", "2 -> 3"},
        "dropped line": {
            'raise ValueError(f"a" + "b") -> pass',
            "rows[0] += x - 1 -> pass",
            "isinstance(x, int | str) -> pass",
        },
    }


def test_every_kind_of_fault_in_cpp() -> None:
    found = planted(CPP, places_in_cpp(CPP))
    assert found["sign"] == {"- -> +"} and found["mask"] == {"&& -> ||"}
    assert found["comparison"] == {"< -> <=", "== -> !=", "> -> >="}
    assert found["index"] == {"0 -> 1"} and set(found) <= set(KINDS)


def test_what_is_drawn_can_be_planted_and_is_drawn_again_by_its_seed() -> None:
    drawn = draw(7)
    assert drawn == draw(7) and len(drawn) >= 40
    assert len({(one.file, one.function) for one in drawn}) == len(drawn)
    for one in drawn:
        text = (ROOT / one.file).read_text()
        changed = one.planted(text)
        assert changed != text
        if one.file.endswith(".py"):
            ast.parse(changed)


def test_a_file_that_has_changed_takes_no_fault() -> None:
    fault = Fault("engine", "x.py", "f", "sign", "a - b", "a + b")
    with pytest.raises(ValueError, match=r"x\.py has changed where f had a fault"):
        fault.planted("a * b")
