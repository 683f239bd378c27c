"""Circuits in JSON files: {"heads": {"9.9": "END"}, "classes": {…}, "edges": [["2.2", "5.5.k"]]}.

A head at several roles has a list of them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from ioi_fast.asked.circuit import Circuit
from ioi_fast.outside.json_files import read_json
from ioi_fast.outside.quoting import cut, quoted
from ioi_fast.outside.whole_files import write_text

_KEYS = ("heads", "classes", "edges")


def circuit_to_dict(circuit: Circuit) -> dict[str, object]:
    """A circuit as plain lists and strings, ready for JSON."""
    return {
        "heads": {
            str(head): roles[0] if len(roles) == 1 else list(roles)
            for head, roles in circuit.roles.items()
        },
        "classes": {name: list(map(str, heads)) for name, heads in circuit.classes.items()},
        "edges": [list(edge) for edge in circuit.edges],
    }


def circuit_from_dict(found: object) -> Circuit:
    """The circuit that a dictionary holds; raises TypeError or ValueError naming what is wrong."""
    if not isinstance(found, Mapping):
        raise TypeError(f"a circuit must be an object with 'heads', got {type(found).__name__}")
    unknown = [key for key in found if key not in _KEYS]
    if unknown or "heads" not in found:
        raise ValueError(
            "a circuit must have 'heads' and may have 'classes' and 'edges', "
            f"got {quoted(list(found))}"
        )
    return Circuit(found["heads"], found.get("classes"), found.get("edges"))


def save_circuit(circuit: Circuit, path: str | os.PathLike[str]) -> Path:
    """Writes a circuit as JSON, whole or not at all."""
    return write_text(path, json.dumps(circuit_to_dict(circuit), indent=1) + "\n")


def load_circuit(path: str | os.PathLike[str]) -> Circuit:
    """Reads a circuit from JSON; raises OSError, or ValueError naming the file and what is wrong.

    >>> load_circuit("circuit.json")  # doctest: +SKIP
    Circuit(0.1@S2, 9.9@END)
    """
    found = read_json(path)
    try:
        return circuit_from_dict(found)
    except (TypeError, ValueError) as problem:
        raise ValueError(f"{path}: {cut(problem)}") from problem
