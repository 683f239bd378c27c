"""Prompt files as users have them, from records of ours."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ioi_fast.ioi.dataset import abc_records
from ioi_fast.ioi.records import sample_records


def write_prompts(file: Path, n: int, forms: Sequence[int], seed: int = 3) -> Path:
    """A file of n prompts of these forms, each with its ABC prompt."""
    records = sample_records(n, seed, forms)
    prompts = [
        {
            "clean": one.text,
            "corrupt": other.text,
            "answers": [f" {one.io}"],
            "wrong_answers": [f" {one.s1}"],
        }
        for one, other in zip(records, abc_records(records, seed), strict=True)
    ]
    file.write_text(json.dumps({"prompts": prompts}))
    return file
