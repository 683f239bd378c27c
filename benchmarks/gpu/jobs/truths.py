"""The truth of every job's sample, computed once for all precisions and parts of a run.

`python -m ioi_fast.benchmarks.gpu.jobs.truths SETTING` writes it beside other work, such as that of
tests, since it takes the host alone.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ioi_fast.benchmarks.gpu.jobs.job import job
from ioi_fast.benchmarks.gpu.machine import source_hash
from ioi_fast.benchmarks.gpu.orphans import end_with_parent
from ioi_fast.benchmarks.gpu.setting import Setting


def truth_of(setting: Setting, name: str) -> Tensor:
    """A job's sample by the reference in float64, read where it stands or computed now."""
    path, key = path_of(setting, name), key_of(setting)
    if (kept := read(path, key)) is not None:
        return kept
    values = job(name, setting.dry).truth(setting.host).contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    save_file({"values": values}, part, {"key": key})
    os.replace(part, path)
    return values


def read(path: Path, key: str) -> Tensor | None:
    """What stands in a file, if it is whole and of this key."""
    try:
        with safe_open(path, "pt") as file:
            kept = (file.metadata() or {}).get("key") == key
            return file.get_tensor("values") if kept else None
    except (OSError, SafetensorError):
        return None


def key_of(setting: Setting) -> str:
    """What a truth is the truth of, beside the job's name: weights and prompts as torch drew them,
    and the sources that say what is asked and what is true."""
    tokens = job("J4", setting.dry).pairs.token_hash()
    return f"{setting.host.weight_hash()} {tokens} {source_hash()}"


def path_of(setting: Setting, name: str) -> Path:
    """Where a job's truth stands."""
    kind = "dry" if setting.dry else "gpt2-small"
    return setting.work / "truths" / f"{kind}-{name.replace(' ', '-')}.safetensors"


def main(arguments: list[str]) -> int:
    """Computes what is missing, with half of the threads: others work beside it."""
    end_with_parent()
    setting = Setting.of_json(arguments[0])
    torch.set_num_threads(max(1, torch.get_num_threads() // 2))
    for name in setting.jobs:
        truth_of(setting, name)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
