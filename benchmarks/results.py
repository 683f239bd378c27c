"""Results as files: one JSON per machine, and the README's table made from it."""

from __future__ import annotations

import json
import platform
import re
import statistics
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results"
README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN, END = "<!-- speed: begin -->", "<!-- speed: end -->"


def machine() -> str:
    """A name for this machine: the CPU as the kernel calls it."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    found = re.search(r"model name\s*:\s*(.+)", text)
    return (found[1] if found else platform.processor() or platform.machine()).strip()


def slug(text: str) -> str:
    """The name of a file for a machine's name."""
    return "-".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


def read(path: Path) -> dict:
    """A results file; raises ValueError when it is not one."""
    found = json.loads(path.read_text())
    if not isinstance(found, dict) or "jobs" not in found:
        raise ValueError(f"{path} is not a results file")
    return found


def merged(new: dict, old: dict | None) -> dict:
    """New results by name of the job, with the old ones of jobs that were not measured.

    Raises ValueError when those are of another machine or other versions.
    """
    kept = [] if old is None else old["jobs"]
    if old is not None and new["machine"] != old["machine"]:
        raise ValueError(f"results of {old['machine']} can't be kept beside {new['machine']}")
    measured = {job["job"] for job in new["jobs"]}
    jobs = [*new["jobs"], *(job for job in kept if job["job"] not in measured)]
    return {"machine": new["machine"], "jobs": sorted(jobs, key=lambda job: job["job"])}


def table(results: dict) -> str:
    """The table of speed and error in Markdown."""
    lines = [
        "| job | ours | peers, for one unit of the job: how many times faster ours is | error "
        "| of the floor |",
        "|---|---|---|---|---|",
    ]
    for job in results["jobs"]:
        ours = statistics.median(job["seconds"])
        peers = "; ".join(_peer(peer, job["unit"]) for peer in job["peers"])
        lines.append(
            f"| {job['job']} | {ours:.2f} s ({job['backend']}, {job['precision']}) | {peers} "
            f"| {job['error']:.0e} | {job['efficiency']:.0%} |"
        )
    facts = results["machine"]
    commits = ", ".join(dict.fromkeys(job["commit"] for job in results["jobs"]))
    rates = [job["matrix_rate"] for job in results["jobs"] if job["precision"] == "fp32"]
    lines += [
        "",
        f"Measured by `ioi-fast bench` on {facts['threads']} threads of {facts['cpu']}, torch "
        f"{facts['torch']}, transformers {facts['transformers']}, commit {commits}; "
        "medians of alternating runs. Mark: the goal that was set for the job. Error: against the "
        "reference in float64. Floor: "
        f"unavoidable FLOPs over the matrix rate of the same run "
        f"({statistics.median(rates) / 1e9:.0f} GFLOP/s).",
    ]
    return "\n".join(lines)


def _peer(peer: dict, unit: str) -> str:
    """One peer: its time, and how many times faster ours is."""
    seconds, ratio = statistics.median(peer["seconds_a_unit"]), peer["ratio"]
    text = f"{peer['name']}, {seconds:.2f} s a {unit}: **{ratio:.{0 if ratio >= 10 else 1}f}×**"
    return text + (f" (mark {peer['mark']}×)" if peer["mark"] else "")


def into_readme(text: str, results: dict) -> str:
    """The README with its table made anew; raises ValueError when the marks are missing."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"README must hold {BEGIN} and {END} once each")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{table(results)}\n{END}{rest.split(END)[1]}"
