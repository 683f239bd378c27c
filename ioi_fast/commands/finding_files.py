"""Findings as JSON files, each with a key of all that it depends on."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from ioi_fast.circuit_files import circuit_from_dict, circuit_to_dict
from ioi_fast.ioi.finding import Finding, Measure
from ioi_fast.report.atomic import write_text
from ioi_fast.report.figures_json import figure_from_dict, figure_to_dict


def stored(file: Path, key: str) -> Finding | None:
    """What was found with the same key; None for none, and for a file that is none of ours."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if found["key"] != key:
            return None
        read = Finding(
            found["experiment"],
            found["title"],
            tuple(Measure(**one) for one in found["measures"]),
            tuple(figure_from_dict(one) for one in found["figures"]),
            circuit_from_dict(found["circuit"]) if found["circuit"] else None,
        )
        read.table()  # which finds measures that are no numbers
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return read


def store(file: Path, key: str, finding: Finding, seconds: float) -> None:
    """Writes a finding, whole or not at all."""
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
