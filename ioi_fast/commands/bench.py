"""`ioi-fast bench`: the benchmark jobs beside their peers, as a table and a file of results."""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

from ioi_fast.commands.options import positive

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
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the jobs; returns pytest's exit status."""
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
