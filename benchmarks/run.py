"""Runs the jobs beside their peers and writes the results, from which a table is made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from ioi_fast.benchmarks import results
from ioi_fast.outside.whole_files import try_out, write_text
from ioi_fast.results.revision import revision

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Request:
    """Which jobs are run, and where their results go."""

    threads: int | None = None  # None: as many as torch takes by itself
    only: str = ""  # an expression as pytest's -k has them
    long: bool = False  # the jobs of minutes too
    keep: bool = False  # as this machine's committed results, and into the README
    out: Path | None = None  # a file for the results


def run(request: Request) -> int:
    """Runs the jobs, prints their table and writes the results; pytest's exit status.

    Kept results go to benchmarks/results, and into the README's table; jobs that were not measured
    keep what they had, with the commit at which they had it. Raises ValueError when results are to
    be kept and this is not a checkout, or those that are there were measured otherwise.
    """
    if request.keep and not results.README.exists():
        raise ValueError("readme: results are kept in a checkout, and the package is installed")
    threads = request.threads or torch.get_num_threads()
    machine, commit = _machine(threads), revision() or f"release {version('ioi_fast')}"
    folder = results.RESULTS if request.keep else Path("out") / "benchmarks"
    path = request.out or folder / f"{results.slug(machine['cpu'])}.json"
    old = results.read(path) if request.keep and path.exists() else None
    results.merged({"machine": machine, "jobs": []}, old)  # raises now rather than in an hour
    try_out(path)
    jobs = _measured(request, threads)
    if isinstance(jobs, int):
        return jobs
    new = {"machine": machine, "jobs": [{**job, "commit": commit} for job in jobs]}
    found = results.merged(new, old)
    print(results.table(found))
    write_text(path, json.dumps(found, indent=1) + "\n")
    print(f"\nresults written: {path}")
    if request.keep:
        write_text(results.README, results.into_readme(results.README.read_text(), found))
    return 0


def _measured(request: Request, threads: int) -> Sequence[dict] | int:
    """What the jobs found, or the exit status of a run that failed."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.json"
        chosen = ["-m", "" if request.long else "not long", "-k", request.only]
        options = ["-c", HERE / "pytest.ini", "--rootdir", HERE, "--benchmark-json", raw, *chosen]
        # A safe path: "python -m" would put the folder it is called from in front of packages.
        command = [sys.executable, "-P", "-m", "pytest", HERE, *options]
        environment = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        done = subprocess.run(
            [str(part) for part in command], env={**os.environ, **environment}, check=False
        )
        if done.returncode:
            return done.returncode
        return [case["extra_info"] for case in json.loads(raw.read_text())["benchmarks"]]


def _machine(threads: int) -> dict[str, object]:
    return {
        "cpu": results.machine(),
        "cores": os.cpu_count(),
        "threads": threads,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "ioi_fast": version("ioi_fast"),
    }
