"""Findings as JSON files, each with a key of all that it depends on.

A file that is there but holds no finding is never written over: it may be somebody's own.
"""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

from ioi_fast.asked.circuit_files import circuit_from_dict, circuit_to_dict
from ioi_fast.ioi.finding import Finding
from ioi_fast.ioi.verdicts import Measure
from ioi_fast.outside.json_files import read_json_object
from ioi_fast.outside.quoting import cut, quoted
from ioi_fast.outside.whole_files import write_text
from ioi_fast.report.figures_json import figure_from_dict, figure_to_dict

_TYPES = {
    "str": (str,),
    "int": (int,),
    "float | str": (float, int, str),
    "float | None": (float, int, type(None)),
}


def stored(file: Path, key: str) -> Finding | None:
    """What was found with the same key; None where there is no file, or one with another key.

    Raises ValueError naming the file and the place where it holds no finding.
    """
    try:
        found = read_json_object(file)
    except FileNotFoundError:
        return None
    try:
        return _read(found) if _text(found, "key") == key else None
    except ValueError as problem:
        raise ValueError(
            f"{file} is no finding: {cut(problem)}; move it away to measure anew"
        ) from problem


def store(file: Path, key: str, finding: Finding, seconds: float) -> None:
    """Writes a finding, whole or not at all; raises ValueError for measures that are no numbers."""
    finding.table()
    found = {
        "experiment": finding.experiment,
        "title": finding.title,
        "key": key,
        "seconds": round(seconds, 3),
        "measures": [asdict(one) for one in finding.measures],
        "figures": [figure_to_dict(one) for one in finding.figures],
        "circuit": None if finding.circuit is None else circuit_to_dict(finding.circuit),
    }
    write_text(file, json.dumps(found, indent=1) + "\n")


def _read(found: dict[str, Any]) -> Finding:
    measures = [_measure(one, f"measures[{i}]") for i, one in enumerate(_list(found, "measures"))]
    figures = []
    for i, figure in enumerate(_list(found, "figures")):
        try:
            figures.append(figure_from_dict(figure))
        except (TypeError, ValueError) as problem:
            raise ValueError(f"figures[{i}]: {problem}") from problem
    circuit = found.get("circuit")
    try:
        circuit = None if circuit is None else circuit_from_dict(circuit)
    except (TypeError, ValueError) as problem:
        raise ValueError(f"circuit: {problem}") from problem
    experiment, title = _text(found, "experiment"), _text(found, "title")
    return Finding(experiment, title, tuple(measures), tuple(figures), circuit)


def _measure(found: Any, place: str) -> Measure:
    if not isinstance(found, dict):
        raise ValueError(f"{place} must be an object, got {quoted(found)}")
    known = {field.name: field for field in fields(Measure)}
    for name, value in found.items():
        if name not in known:
            raise ValueError(f"{place}: {quoted(name)} is not known")
        kinds = _TYPES[known[name].type]
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise ValueError(f"{place}.{name} must be {known[name].type}, got {quoted(value)}")
    for name, field in known.items():
        if field.default is MISSING and name not in found:
            raise ValueError(f"{place}.{name} is missing")
    return Measure(**found)


def _text(found: dict[str, Any], name: str) -> str:
    value = found.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a text, got {quoted(value)}")
    return value


def _list(found: dict[str, Any], name: str) -> list[Any]:
    value = found.get(name)
    if not isinstance(value, list):
        raise ValueError(f"{name} must be a list, got {quoted(value)}")
    return value
