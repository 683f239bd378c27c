"""Where a fault can be planted in a Python file: a sign, an index, a mask, a comparison, a line."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

KINDS = ("sign", "index", "mask", "comparison", "dropped line")
_SIGNS = {ast.Add: ("+", "-"), ast.Sub: ("-", "+")}
_MASKS = {ast.BitAnd: ("&", "|"), ast.BitOr: ("|", "&")}
_COMPARISONS = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
}
_BOOLEANS = {ast.And: ("and", "or"), ast.Or: ("or", "and")}


@dataclass(frozen=True, slots=True)
class Place:
    """Text of a file from one offset to another, and what stands there with the fault."""

    function: str
    kind: str
    start: int
    stop: int
    after: str


class _Finder:
    """Walks the bodies of functions; annotations and docstrings hold no faults."""

    def __init__(self, text: str) -> None:
        self._starts = [0]
        for line in text.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line.encode()))
        self._bytes = text.encode()

    def places(self, tree: ast.AST, function: str = "") -> Iterator[Place]:
        for node in ast.iter_child_nodes(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                inner = f"{function}.{node.name}" if function else node.name
                if isinstance(node, ast.FunctionDef):
                    for statement in node.body:
                        yield from self._in(statement, inner)
                else:
                    yield from self.places(node, inner)

    def _in(self, node: ast.AST, function: str) -> Iterator[Place]:
        if isinstance(node, ast.FunctionDef):
            for statement in node.body:
                yield from self._in(statement, f"{function}.{node.name}")
            return
        for kind, start, stop, after in self._at(node):
            yield Place(function, kind, start, stop, after)
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns"):
                continue
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from self._in(child, function)

    def _at(self, node: ast.AST) -> Iterator[tuple[str, int, int, str]]:
        if isinstance(node, ast.BinOp) and not _is_text(node):
            for kind, table in (("sign", _SIGNS), ("mask", _MASKS)):
                if type(node.op) in table:
                    yield kind, *self._between(node.left, node.right, *table[type(node.op)])
        elif isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARISONS:
            swap = _COMPARISONS[type(node.ops[0])]
            yield "comparison", *self._between(node.left, node.comparators[0], *swap)
        elif isinstance(node, ast.BoolOp):
            swap = _BOOLEANS[type(node.op)]
            yield "mask", *self._between(node.values[0], node.values[1], *swap)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.Invert):
            yield "mask", self._start(node), self._start(node.operand), ""
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            if not isinstance(node.operand, ast.Constant):
                yield "sign", self._start(node), self._start(node.operand), ""
        elif isinstance(node, ast.Subscript):
            for part in ast.walk(node.slice):
                if isinstance(part, ast.Constant) and type(part.value) is int:
                    yield "index", self._start(part), self._stop(part), str(part.value + 1)
        if _can_be_dropped(node):
            yield "dropped line", self._start(node), self._stop(node), "pass"

    def _between(
        self, left: ast.AST, right: ast.AST, before: str, after: str
    ) -> tuple[int, int, str]:
        start = self._bytes.index(before.encode(), self._stop(left), self._start(right))
        return start, start + len(before), after

    def _start(self, node: ast.AST) -> int:
        return self._starts[node.lineno - 1] + node.col_offset

    def _stop(self, node: ast.AST) -> int:
        return self._starts[node.end_lineno - 1] + node.end_col_offset


def _is_text(node: ast.BinOp) -> bool:
    return any(
        isinstance(side, ast.JoinedStr)
        or (isinstance(side, ast.Constant) and isinstance(side.value, str))
        for side in (node.left, node.right)
    )


def _can_be_dropped(node: ast.AST) -> bool:
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Call)
    if isinstance(node, ast.Assign):
        return all(isinstance(target, ast.Subscript | ast.Attribute) for target in node.targets)
    return isinstance(node, ast.AugAssign | ast.Raise | ast.Continue)


def places_in_python(text: str) -> list[Place]:
    """Every place in a file's functions; offsets are of bytes."""
    return list(_Finder(text).places(ast.parse(text)))
