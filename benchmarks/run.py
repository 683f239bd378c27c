"""`make bench`: runs the jobs, prints their table and writes the results to out/.

With --readme they become this machine's results in benchmarks/results, and the README's table; jobs
that were not measured keep what they had, with the commit at which they had it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import torch

from ioi_fast.revision import revision

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import results  # noqa: E402


def main() -> int:
    """Runs the benchmarks; returns pytest's exit status."""
    parser = argparse.ArgumentParser(prog="benchmarks.run", description=__doc__)
    parser.add_argument("--threads", type=int, default=None, help="threads (default: torch's own)")
    parser.add_argument("--out", type=Path, help="results file (default: out/benchmarks/…)")
    parser.add_argument("--readme", action="store_true", help="keep the results and their table")
    parser.add_argument("--all", action="store_true", help="the long jobs too (15 minutes)")
    parser.add_argument("-k", dest="only", default="", help="only benchmarks that match")
    chosen = parser.parse_args()
    threads = chosen.threads or torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.json"
        status = _run_pytest(raw, threads, chosen.only, chosen.all)
        if status != 0:
            return status
        jobs = [case["extra_info"] for case in json.loads(raw.read_text())["benchmarks"]]
    found = {"machine": _machine(threads), "jobs": [{**job, "commit": revision()} for job in jobs]}
    folder = results.RESULTS if chosen.readme else HERE.parent / "out" / "benchmarks"
    path = chosen.out or folder / f"{_slug(found['machine']['cpu'])}.json"
    if chosen.readme and path.exists():
        found = results.merged(found, results.read(path))
    print(results.table(found))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")
    print(f"\nresults written: {path}")
    if chosen.readme:
        results.README.write_text(results.into_readme(results.README.read_text(), found))
    return 0


def _run_pytest(raw: Path, threads: int, only: str, everything: bool) -> int:
    options = [
        "-o",
        "python_files=bench_*.py",
        "-o",
        "python_functions=bench_*",
        "-m",
        "" if everything else "not long",
    ]
    options += ["--benchmark-json", str(raw), "--benchmark-disable-gc", "-o", "timeout=0"]
    command = [sys.executable, "-m", "pytest", str(HERE), *options, "-k", only]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    return subprocess.run(command, env=environment, cwd=HERE.parent, check=False).returncode


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


def _slug(text: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


if __name__ == "__main__":
    sys.exit(main())
