"""`ioi-fast bench`: the benchmark jobs beside their peers, as a table and files of results."""

from __future__ import annotations

import argparse
from importlib.util import find_spec

from ioi_fast.benchmarks.gpu.arguments import add_arguments, folder, run_given
from ioi_fast.commands.options import positive

_NOTHING_MATCHED = 5  # pytest's exit status
_NEEDED = ("pytest", "pytest_benchmark", "transformers")
# Options that belong to one of both alone.
_OF_CPU = ("only", "all", "threads", "readme")
_OF_GPU = ("dry", "budget", "parts", "jobs", "precisions", "device", "tune")


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "bench",
        help="how fast this machine is, beside TransformerLens and transformers",
        description="Runs the jobs and their peers in turn, on random weights of GPT-2 small's "
        "shapes: equality first, then time. Peers get environments of their own, built on first "
        "use (some minutes). Prints a table and writes the results. With --backend triton: all "
        "that a GPU can tell, each part written as it ends.",
    )
    parser.add_argument("--backend", default="cpu", choices=("cpu", "triton"), help="(default cpu)")
    parser.add_argument(
        "--out",
        type=folder,
        help="results file (default: out/benchmarks/CPU.json); with triton a folder (out/gpu)",
    )
    cpu = parser.add_argument_group("on a CPU")
    cpu.add_argument("-k", dest="only", default="", help="only jobs that match, as in pytest")
    cpu.add_argument("--all", action="store_true", help="the jobs of minutes too (an hour)")
    cpu.add_argument("--threads", type=positive, help="threads (default: torch's own)")
    cpu.add_argument(
        "--readme",
        action="store_true",
        help="in a checkout: keep them as this machine's results, and make the README's table anew",
    )
    add_arguments(parser.add_argument_group("on a GPU (--backend triton)"))
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the jobs; returns pytest's exit status, or that of the parts on a GPU."""
    on_gpu = arguments.backend == "triton"
    _check_apart(arguments, _OF_CPU if on_gpu else _OF_GPU, on_gpu)
    if on_gpu:
        return run_given(arguments)
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


def _check_apart(arguments: argparse.Namespace, others: tuple[str, ...], on_gpu: bool) -> None:
    """Raises ValueError for options that the chosen benchmarks do not have."""
    given = [name for name in others if getattr(arguments, name)]
    if given:
        said = ", ".join("-k" if name == "only" else f"--{name}" for name in given)
        whose = "the CPU's benchmarks" if on_gpu else "--backend triton"
        raise ValueError(f"{said}: of {whose} alone")
