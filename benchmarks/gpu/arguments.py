"""What a run on a GPU is asked for, checked before anything runs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from ioi_fast.benchmarks.gpu import parts
from ioi_fast.benchmarks.gpu.program import run
from ioi_fast.benchmarks.gpu.setting import JOBS, PRECISIONS, Setting

SECONDS = 540
OUT = Path("out") / "gpu"


def listed(names: Sequence[str], what: str):
    """A type of argument: some of these names, with commas between."""

    def chosen(text: str) -> tuple[str, ...]:
        asked = [one.strip() for one in text.split(",") if one.strip()]
        unknown = [one for one in asked if one not in names]
        if unknown or not asked:
            said = ", ".join(names)
            raise argparse.ArgumentTypeError(
                f"{what} are {said}, got {', '.join(unknown) or text!r}"
            )
        return tuple(name for name in names if name in asked)

    return chosen


def seconds(text: str) -> float:
    """A number of seconds above zero."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number of seconds above 0, got {text!r}")
    return found


def add_arguments(parser) -> None:
    """Adds what `ioi-fast bench --backend triton` takes too."""
    parser.add_argument(
        "--dry",
        action="store_true",
        help="all of it in Triton's interpreter and on the CPU, on a small model, and no times",
    )
    parser.add_argument(
        "--budget",
        type=seconds,
        metavar="SECONDS",
        help=f"time for all parts (default {SECONDS}); a short one takes repeats, not jobs",
    )
    parser.add_argument(
        "--parts", type=listed(parts.NAMES, "parts"), help=f"some of {','.join(parts.NAMES)}"
    )
    parser.add_argument("--jobs", type=listed(JOBS, "jobs"), help=f"some of {','.join(JOBS)}")
    parser.add_argument(
        "--precisions",
        type=listed(PRECISIONS, "precisions"),
        help=f"some of {','.join(PRECISIONS)}",
    )
    parser.add_argument("--device", type=gpu, help="the GPU (default cuda), such as cuda:1")
    parser.add_argument(
        "--tune",
        action="store_true",
        help="time every tile of every kernel, and take the fastest on this device from now on",
    )


def run_given(given: argparse.Namespace) -> int:
    """Runs what was asked for; raises RuntimeError without a GPU, unless it is a dry run, and
    ValueError for options that exclude each other."""
    device = given.device or "cuda"
    if given.tune and "kernels" not in (given.parts or parts.NAMES):
        raise ValueError("--tune is of the part kernels, which --parts leaves out")
    if not given.dry:
        check_gpu(device)
    setting = Setting(
        given.out or OUT,
        given.dry,
        device,
        given.jobs or JOBS,
        given.precisions or PRECISIONS,
        given.tune,
    )
    chosen = parts.chosen(given.parts or parts.NAMES, given.tune)
    return run(setting, chosen, given.budget or SECONDS)


def check_gpu(name: str) -> None:
    """Raises RuntimeError unless torch sees the device, which is not taken into use by that."""
    if not torch.cuda.is_available():
        raise RuntimeError("no GPU to measure: torch sees none; --dry needs none")
    count, index = torch.cuda.device_count(), torch.device(name).index or 0
    if index >= count:
        raise RuntimeError(
            f"device {name!r} can't be measured: torch sees {count} GPU(s), from 0 on"
        )


def gpu(name: str) -> str:
    """The name of a GPU."""
    try:
        kind = torch.device(name).type
    except RuntimeError:
        kind = None
    if kind != "cuda":
        raise argparse.ArgumentTypeError(f"expected a GPU, such as cuda or cuda:1, got {name!r}")
    return name


def folder(name: str) -> Path:
    """A place for results."""
    if not name:
        raise argparse.ArgumentTypeError("expected a name, got ''")
    return Path(name)
