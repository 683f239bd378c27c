"""Results of a device as committed files, and the blocks of README and docs made from them.

`python -P -m ioi_fast.benchmarks.gpu.keep FOLDER`, on any machine, in the checkout that was
measured; FOLDER is where a run on a GPU wrote its parts.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ioi_fast.benchmarks import results
from ioi_fast.benchmarks.gpu import report
from ioi_fast.benchmarks.gpu.machine import source_hash
from ioi_fast.benchmarks.gpu.part_files import PartFile, same_machine
from ioi_fast.benchmarks.gpu.parts import NAMES
from ioi_fast.outside.whole_files import write_text
from ioi_fast.results.revision import revision

KEPT = results.RESULTS / "gpu"
DOCS = Path(__file__).resolve().parents[2] / "docs" / "kernels.md"
BEGIN, END = "<!-- gpu: begin -->", "<!-- gpu: end -->"
NONE = (
    "No GPU has run it yet. On one, `make gpu` measures in ten minutes what will stand here, and "
    "nothing else does."
)


def kept() -> list[dict]:
    """Committed results, by device."""
    return [json.loads(path.read_text()) for path in sorted(KEPT.glob("*.json"))]


def keep(folder: Path) -> Path:
    """Puts a run's parts among the committed results; parts that it lacks stay if they were
    measured of the same sources.

    Raises ValueError, and writes nothing, for a dry run, for a folder without results or with those
    of two devices, and for a run of other sources than those that stand here.
    """
    measured = parts_in(folder)
    machine = next(iter(measured.values()))["machine"]
    for name, part in measured.items():
        if part.get("dry"):
            raise ValueError(f"folder: {folder} holds a dry run, which has measured nothing")
        if not same_machine(part["machine"], machine):
            raise ValueError(f"folder: in {folder}, {name} is of another device or other versions")
    if machine["source"] != source_hash():
        raise ValueError(f"folder: {folder} was measured of other sources than stand here")
    commit = revision()
    if commit is None or commit.endswith("+changes"):
        raise ValueError(f"results are kept of a commit, and this checkout is {commit}")
    path = KEPT / f"{results.slug(machine['device'])}.json"
    old = json.loads(path.read_text())["parts"] if path.exists() else {}
    stay = {name: part for name, part in old.items() if same_machine(part["machine"], machine)}
    one = {"machine": {**machine, "commit": commit}, "parts": {**stay, **measured}}
    for block in (readme_block, docs_block):
        block([one])  # what can't be shown is not kept
    return write_text(path, json.dumps(one, indent=1) + "\n")


def parts_in(folder: Path) -> dict[str, dict]:
    """Parts that a run has written into a folder; raises ValueError where there is none."""
    found = {}
    for name in NAMES:
        try:
            part = PartFile(folder / f"{name}.json").content
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as problem:
            raise ValueError(f"folder: {folder}/{name}.json can't be read: {problem}") from None
        if part.get("machine"):
            found[name] = part
    if not found:
        raise ValueError(f"folder: {folder} holds no part that a device has run")
    return found


def rows_by_part(one: dict) -> report.Found:
    """The rows of a device's results."""
    return {name: part["rows"] for name, part in one["parts"].items()}


def readme_block(all_kept: list[dict]) -> str:
    """The README's words on GPUs: a headline and the jobs of each device."""
    if not all_kept:
        return NONE
    lines: list[str] = []
    for one in all_kept:
        found = rows_by_part(one)
        lines += [*headline(found), "", *report.job_lines(found), ""]
        lines += [measured_by(one["machine"]), ""]
    return "\n".join(lines).strip()


def headline(found: report.Found) -> list[str]:
    """J1 in fp32 against the fastest peer that is as exact."""
    rows = [row for row in found.get("jobs", ()) if row.get("unit") == "J1 fp32"]
    if not rows or not rows[0].get("seconds") or "missed" in rows[0]:
        return []
    peer = report.fastest_peer(found, "J1", "fp32")
    text = f"All 144 heads to the logits on 16 prompts: {report.time_of(rows[0])} in fp32"
    if peer is not None:
        text += f", {report.median(peer) / report.median(rows[0]):.1f} times as fast as the "
        text += f"fastest peer that is as exact ({peer['rung']} in {peer['precision']})"
    return [f"**{text}.**"]


def measured_by(machine: dict) -> str:
    """Where figures are from."""
    return (
        f"Measured by `make gpu` on one {machine['device']}, driver {machine['driver']}, torch "
        f"{machine['torch']}, triton {machine['triton']}, {machine['host_cpu']}, commit "
        f"{machine['commit']}; medians, by the device's events."
    )


def docs_block(all_kept: list[dict]) -> str:
    """Everything measured, for the page of the kernels."""
    if not all_kept:
        return NONE
    lines: list[str] = []
    for one in all_kept:
        found = rows_by_part(one)
        lines += [*report.tables(found), "", *report.problems(found), ""]
        lines += [measured_by(one["machine"]), ""]
    return "\n".join(lines).strip()


def into(text: str, block: str) -> str:
    """A page with its block made anew; raises ValueError when its marks are missing."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"a page must hold {BEGIN} and {END} once each")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{block}\n{END}{rest.split(END)[1]}"


def write_pages() -> None:
    """README and docs anew, from what is committed."""
    found = kept()
    for page, block in ((results.README, readme_block(found)), (DOCS, docs_block(found))):
        write_text(page, into(page.read_text(), block))


def main(arguments: list[str]) -> int:
    """Keeps a folder's results, if one is given, and writes the pages; 2 where that can't be."""
    try:
        if not results.README.exists():
            raise ValueError("results are kept in a checkout, and the package is installed")
        for folder in arguments:
            print(f"kept: {keep(Path(folder))}")
        write_pages()
    except ValueError as problem:
        print(f"keep: {problem}", file=sys.stderr)
        return 2
    print(f"written: {results.README}, {DOCS}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
