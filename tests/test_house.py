"""The order of the folders, as docs/design.md draws it: each imports only those before it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import ioi_fast

ROOT = Path(ioi_fast.__file__).parent
ORDER = (
    *("outside", "own_settings", "tokenizer", "model", "asked", "plan", "results", "reference"),
    *("engine", "report", "calls", "ioi", "demo", "commands", "cli"),
)
# A model's own call is a forward pass of the engine.
FACADE = ("model.gpt2", "engine")


def modules() -> dict[str, Path]:
    """Every module of the package by its name below it."""
    files = {path: path.relative_to(ROOT).with_suffix("").parts for path in ROOT.rglob("*.py")}
    return {".".join(p for p in parts if p != "__init__"): file for file, parts in files.items()}


def imported(name: str, text: str, known: dict[str, Path]) -> Iterator[str]:
    """The modules of the package that a module imports, also within functions; not for types."""
    tree = ast.parse(text)
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types or not isinstance(node, ast.ImportFrom):
            continue
        outer, _, inner = (node.module or "").partition("ioi_fast")
        if outer or not (node.module or "").startswith("ioi_fast"):
            continue
        for alias in node.names:
            whole = f"{inner}.{alias.name}".strip(".")
            yield whole if whole in known else inner.strip(".")


def climbs(texts: dict[str, str], known: dict[str, Path]) -> list[str]:
    """Imports of a folder that comes later, as "from -> to"."""
    found = []
    for name, text in texts.items():
        for other in imported(name, text, known):
            mine, theirs = name.split(".")[0], other.split(".")[0]
            both = mine in ORDER and theirs in ORDER and (name, theirs) != FACADE
            if both and ORDER.index(mine) < ORDER.index(theirs):
                found.append(f"{name} -> {other}")
    return found


def circles(texts: dict[str, str], known: dict[str, Path]) -> list[set[str]]:
    """Groups of modules that import one another, but for the facade."""
    to = {
        name: {o for o in imported(name, text, known) if (name, o.split(".")[0]) != FACADE}
        for name, text in texts.items()
    }
    reached: dict[str, set[str]] = {}
    for name in to:
        seen, waiting = set(), list(to[name])
        while waiting:
            other = waiting.pop()
            if other not in seen:
                seen.add(other)
                waiting += to.get(other, ())
        reached[name] = seen
    return [{name, *reached[name]} for name in to if name in reached[name]]


def texts() -> dict[str, str]:
    return {name: path.read_text() for name, path in modules().items()}


def test_a_folder_imports_only_those_before_it() -> None:
    assert climbs(texts(), modules()) == []
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert folders <= {*ORDER, "kernels", "benchmarks"}


def test_no_modules_import_one_another() -> None:
    assert circles(texts(), modules()) == []


def test_few_files_lie_flat() -> None:
    assert len(list(ROOT.glob("*.py"))) <= 5


def test_a_climb_and_a_circle_are_seen() -> None:
    known = modules()
    planted = {**texts(), "plan.blocks": "from ioi_fast.engine.wave import Wave\n"}
    assert climbs(planted, known) == ["plan.blocks -> engine.wave"]
    planted["engine.wave"] = "from ioi_fast.plan import blocks\n"
    assert {"plan.blocks", "engine.wave"} <= circles(planted, known)[0]
