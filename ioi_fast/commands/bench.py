"""`ioi-fast bench`: the benchmark jobs beside their peers, as a table and a file of results."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import torch

from ioi_fast.commands.options import positive
from ioi_fast.ops import why_not_triton

_NOTHING_MATCHED = 5  # pytest's exit status
_NEEDED = ("pytest", "pytest_benchmark", "transformers")


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "bench",
        help="how fast this machine is, beside TransformerLens and transformers",
        description="Runs the jobs and their peers in turn, on random weights of GPT-2 small's "
        "shapes: equality first, then time. Peers get environments of their own, built on first "
        "use (some minutes). Prints a table and writes the results.",
    )
    parser.add_argument("-k", dest="only", default="", help="only jobs that match, as in pytest")
    parser.add_argument("--all", action="store_true", help="the jobs of minutes too (an hour)")
    parser.add_argument("--threads", type=positive, help="threads (default: torch's own)")
    parser.add_argument("--out", type=Path, help="results file (default: out/benchmarks/CPU.json)")
    parser.add_argument(
        "--readme",
        action="store_true",
        help="in a checkout: keep them as this machine's results, and make the README's table anew",
    )
    gpu = parser.add_argument_group("on a GPU, without peers")
    gpu.add_argument("--backend", default="cpu", choices=("cpu", "triton"), help="(default cpu)")
    gpu.add_argument(
        "--dry",
        action="store_true",
        help="with triton: all of it in Triton's interpreter on a small model, and no times",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the jobs; returns pytest's exit status."""
    if arguments.backend == "triton":
        return _on_a_gpu(arguments)
    if arguments.dry:
        raise ValueError("--dry is for --backend triton")
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ImportError(
            f"it needs {', '.join(missing)}: pip install 'ioi_fast[bench]' brings what is missing"
        )
    from ioi_fast.benchmarks.run import Request
    from ioi_fast.benchmarks.run import run as run_jobs

    status = run_jobs(
        Request(arguments.threads, arguments.only, arguments.all, arguments.readme, arguments.out)
    )
    if status == _NOTHING_MATCHED:
        raise ValueError(f"-k {arguments.only!r} matches no job; some run with --all alone")
    return status


def _on_a_gpu(arguments: argparse.Namespace) -> int:
    """Starts the jobs in a process of their own: the interpreter is chosen as triton is loaded."""
    others = (arguments.only, arguments.all, arguments.threads, arguments.readme)
    if any(others):
        raise ValueError("--backend triton runs every job: leave -k, --all, --threads, --readme")
    reason = why_not_triton(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    if find_spec("triton") is None or (reason is not None and not arguments.dry):
        raise RuntimeError(f"backend 'triton' can't run: {reason}; --dry shows the rest")
    command = [sys.executable, "-P", "-m", "ioi_fast.benchmarks.gpu"]
    command += ["--dry"] if arguments.dry else []
    command += ["--out", str(arguments.out)] if arguments.out else []
    interpreted = {"TRITON_INTERPRET": "1"} if arguments.dry else {}
    return subprocess.run(command, env={**os.environ, **interpreted}, check=False).returncode
