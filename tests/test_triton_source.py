"""Rules that the source of the Triton kernels keeps, read without triton.

A masked load without `other` leaves rubbish in the lanes that are masked, and a product without
`input_precision` takes TF32 wherever a GPU has it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

KERNELS = Path(__file__).parents[1] / "kernels"
FILES = sorted(KERNELS.glob("triton_*.py"))


def broken_rules(source: str) -> Iterator[str]:
    """Every place that breaks a rule, with its line."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if not isinstance(node.func.value, ast.Name) or node.func.value.id != "tl":
            continue
        named = {keyword.arg for keyword in node.keywords}
        masked = "mask" in named or len(node.args) > 1
        if node.func.attr == "load" and masked and "other" not in named:
            yield f"line {node.lineno}: a masked load without other"
        if node.func.attr == "dot" and "input_precision" not in named:
            yield f"line {node.lineno}: a product without input_precision"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_kernels_keep_the_rules(file: Path) -> None:
    assert list(broken_rules(file.read_text())) == []


def test_the_kernels_use_what_the_rules_are_about() -> None:
    source = "".join(file.read_text() for file in FILES)
    assert "mask=" in source and "tl.load(" in source and "tl.dot(" in source


@pytest.mark.parametrize(
    ("broken", "kept"),
    [
        ("tl.load(a, mask=m)", "tl.load(a, mask=m, other=0.0)"),
        ("tl.load(a, m)", "tl.load(a)"),
        ("x = tl.dot(a, b)", "x = tl.dot(a, b, input_precision='ieee')"),
        ("tl.dot(a, tl.dot(b, c), input_precision=P)", "tl.dot(a, b, c, input_precision=P)"),
    ],
)
def test_a_broken_rule_is_seen(broken: str, kept: str) -> None:
    assert len(list(broken_rules(broken))) == 1
    assert list(broken_rules(kept)) == []
