"""Time and memory against the number of prompts, of variants and the size of the model.

`make cost` measures every point in a process of its own, writes docs/cost.md and docs/cost.svg, and
ends with status 1 if anything grows worse than linearly.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from ioi_fast.benchmarks.results import machine

DOCS = Path(__file__).resolve().parents[1] / "docs"
PROMPTS = (16, 50, 160, 500, 1600)
VARIANTS = (10, 100, 1000, 10000)
MODELS = {"distilgpt2": (6, 12, 768), "small": (12, 12, 768), "medium": (24, 16, 1024)}
# A point may cost this much more a unit than the cheapest smaller one: the machine is not alone.
SLACK = 1.3


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement; memory is what the process grew by at most, and what the plan said."""

    series: str
    label: str
    units: float  # what time is held against: prompts, variants or GFLOP
    seconds: float
    grown: int
    planned: int
    gflop: float


def main() -> int:
    """Measures all points, or with --point one of them in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--point", nargs=2, metavar=("SERIES", "LABEL"))
    parser.add_argument("--out", type=Path, default=DOCS)
    chosen = parser.parse_args()
    if chosen.point:
        print(json.dumps(asdict(measure(*chosen.point))))
        return 0
    points = [measured(*place) for place in places()]
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "cost.md").write_text(page(points))
    draw(points, chosen.out / "cost.svg")
    print(page(points))
    return 0 if not worse(points) else 1


def places() -> list[tuple[str, str]]:
    """Every (series, label)."""
    return [
        *(("prompts", str(n)) for n in PROMPTS),
        *(("variants", str(n)) for n in VARIANTS),
        *(("model", name) for name in MODELS),
    ]


def measured(series: str, label: str) -> Point:
    """A point, measured in a fresh process."""
    command = [sys.executable, "-P", "-m", __spec__.name, "--point", series, label]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    point = Point(**json.loads(run.stdout))
    print(f"{series} {label}: {point.seconds:.2f} s, {point.grown / 2**20:.0f} MiB", flush=True)
    return point


def measure(series: str, label: str) -> Point:
    """A call of this size, after a small one that packs the weights."""
    import ctypes
    import time

    from ioi_fast import GPT2, Circuit, GPT2Config, ablate, explain, path_patch
    from ioi_fast.benchmarks.jobs import CIRCUIT, knock_out_sets, prompts

    L, H, D = MODELS.get(label, MODELS["small"])
    model = GPT2.random(GPT2Config(n_layer=L, n_head=H, n_embd=D), seed=0)
    call, asked, pairs = path_patch, {}, prompts(int(label) if series == "prompts" else 16, 16)
    units = float(len(pairs))
    if series == "variants":
        units = float(label)
        call, asked = ablate, {"variants": knock_out_sets(int(label)), "base": Circuit(CIRCUIT)}
    plan = explain(call, model, pairs, **asked)
    small = {**asked, "variants": asked["variants"][:2]} if asked else {}
    call(model, prompts(2, 16), **small, backend="cpu")
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before, begun = _status("VmRSS"), time.perf_counter()
    call(model, pairs, **asked, backend="cpu")
    seconds, grown = time.perf_counter() - begun, _status("VmHWM") - before
    gflop = plan.flops / 1e9
    return Point(
        series, label, gflop if series == "model" else units, seconds, grown, plan.peak_bytes, gflop
    )


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {name}")


def worse(points: list[Point]) -> list[Point]:
    """Points whose time a unit is more than that of a smaller one: worse than linear."""
    found = []
    for series in ("prompts", "variants", "model"):
        line = [point for point in points if point.series == series]
        for index, point in enumerate(line[1:], start=1):
            cheapest = min(earlier.seconds / earlier.units for earlier in line[:index])
            if point.seconds / point.units > SLACK * cheapest:
                found.append(point)
    return found


def page(points: list[Point]) -> str:
    """The tables as Markdown."""
    titles = {
        "prompts": "All 144 heads to the logits, GPT-2-small shapes, T=16, by prompts",
        "variants": "Knock-out sets in a 26-head circuit, N=16, T=16, by sets",
        "model": "All heads to the logits, N=16, T=16, by shape",
    }
    lines = [
        "# Cost",
        "",
        f"Measured by `make cost` on {torch.get_num_threads()} threads, {machine()}; each point in "
        "a process of its own, with the weights packed before. Memory is by how much the process "
        "grew at most, with the 5 to 12 MB that a process's first large call takes once for "
        "libraries; the plan is what `explain` says.",
        "",
        "![time and memory](cost.svg)",
    ]
    for series, title in titles.items():
        lines += ["", f"## {title}", ""]
        lines += ["| | seconds | a unit, ms | GFLOP/s | memory, MiB | plan, MiB |"]
        lines += ["|---|---|---|---|---|---|"]
        for point in points:
            if point.series == series:
                a_unit = 1e3 * point.seconds / point.units
                lines.append(
                    f"| {point.label} | {point.seconds:.2f} | {a_unit:.2f} | "
                    f"{point.gflop / point.seconds:.0f} | {point.grown / 2**20:.0f} | "
                    f"{point.planned / 2**20:.0f} |"
                )
    bad = worse(points)
    verdict = "Nothing grows worse than linearly."
    if bad:
        verdict = "Worse than linear: " + ", ".join(f"{p.series} {p.label}" for p in bad) + "."
    return "\n".join([*lines, "", "A unit is a prompt, a set or a GFLOP. " + verdict, ""])


def draw(points: list[Point], path: Path) -> None:
    """Time and memory of the three series, on logarithmic axes."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "ioi_fast"  # the same file for the same figures
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 3, figsize=(11, 6), layout="constrained")
    axis_labels = {"prompts": "prompts", "variants": "variants", "model": "GFLOP"}
    for column, (series, name) in enumerate(axis_labels.items()):
        line = [point for point in points if point.series == series]
        units = [point.units for point in line]
        rows = (
            ("seconds", [point.seconds for point in line]),
            ("MiB", [point.grown / 2**20 for point in line]),
        )
        for axis, (unit, values) in zip(axes[:, column], rows, strict=True):
            axis.loglog(units, values, "o-", color="tab:blue")
            axis.set_xlabel(name)
            axis.set_ylabel(unit)
            axis.grid(True, which="both", alpha=0.3)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
