"""What a run has found, as text: tables to paste, and what failed or misses its promise."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from ioi_fast.benchmarks.gpu.part_files import rows_of
from ioi_fast.benchmarks.gpu.units import Row, failed, missed, shown
from ioi_fast.results.promised_accuracy import PROMISED

OURS = ("ours", "graphs")
Found = Mapping[str, Sequence[Row]]  # rows by part


def summary(folder: Path, parts: Sequence[str]) -> str:
    """All of a run that was just made: its tables, then what is missing in it."""
    found = {part: rows_of(folder, part) for part in parts}
    written = ", ".join(f"{part}.json" for part in parts)
    text = [*tables(found), "", *problems(found), f"written to {folder}: {written}"]
    return "\n".join(text)


def tables(found: Found) -> list[str]:
    """Lines of Markdown: the device, the jobs, the ladder, the kernels."""
    blocks = (machine_lines, job_lines, taken_lines, ladder_lines, kernel_lines)
    blocks += (throughput_lines, profile_lines)
    lines: list[str] = []
    for block in blocks:
        own = block(found)
        if own:
            lines += ["", *own]
    return lines


def problems(found: Found) -> list[str]:
    """What was promised and is not so, and what has no finding; rows of one reason together."""
    whose: dict[tuple[str, str], list[str]] = {}
    for part, rows in found.items():
        for row in rows:
            if (why := reason(row)) is not None:
                whose.setdefault((part, why), []).append(row["unit"])
    lines = []
    for (part, why), units in whose.items():
        which = units[0] if len(units) == 1 else f"{len(units)} rows ({units[0]}, …)"
        lines.append(f"- {part}, {which}: {why}")
    return ["What failed, was left out or misses its promise:", "", *lines] if lines else []


def reason(row: Row) -> str | None:
    """Why a row is no finding, or not what it should be; None where all is well."""
    if missed(row):
        return f"missed: {row['missed']}"
    if not failed(row):
        return None
    return (row.get("failed") or f"left out: {row['left_out']}").splitlines()[0]


def machine_lines(found: Found) -> list[str]:
    """The device and what it reaches."""
    rows = {row["unit"]: row for row in found.get("device", ()) if not failed(row)}
    if "machine" not in rows:
        return []
    one = rows["machine"]
    text = f"{one['device']}, driver {one.get('driver')}, torch {one['torch']}, "
    text += f"triton {one['triton']}, {one['host_cpu']}"
    reached = [
        f"{name.removeprefix('product ')} {row['flops_a_second'] / 1e12:.0f} TFLOP/s"
        for name, row in rows.items()
        if "flops_a_second" in row
    ]
    launch, pinned = rows.get("launch", {}), rows.get("pinned copies", {})
    if "host_seconds_a_launch" in launch:
        reached.append(f"a launch {1e6 * launch['host_seconds_a_launch']:.1f} µs of the host")
    if "bytes_a_second" in pinned:
        there, back = (pinned[f"bytes_a_second{way}"] / 1e9 for way in ("", "_back"))
        reached.append(f"pinned copies {there:.0f} GB/s, back {back:.0f}")
    if "bytes_a_second" in rows.get("copy", {}):
        reached.append(f"a copy {rows['copy']['bytes_a_second'] / 1e9:.0f} GB/s")
    return [text, *([f"Ceilings measured: {', '.join(reached)}."] if reached else [])]


def job_lines(found: Found) -> list[str]:
    """Each job and precision, with graphs beside, and the fastest peer that is as exact."""
    rows = [row for row in found.get("jobs", ()) if "error" in row]
    if not rows:
        return []
    lines = [
        "| job | precision | error | ours | with CUDA graphs | of the floor "
        "| fastest peer that meets our error |",
        "|---|---|---|---|---|---|---|",
    ]
    under = {
        (row["job"], row["precision"]): row
        for row in found["jobs"]
        if row.get("captured") and row.get("seconds")
    }
    for row in rows:
        key = (row["job"], row["precision"])
        floor = f"{row['of_floor']:.0%}" if "of_floor" in row else "–"
        cells = [*key, shown(row["error"]), time_of(row), time_of(under.get(key)), floor]
        lines.append(f"| {' | '.join(cells)} | {peer_cell(found, row)} |")
    return lines


def taken_lines(found: Found) -> list[str]:
    """What each job launches and takes of memory, and how far off it is in other company."""
    rows = [row for row in found.get("jobs", ()) if row.get("launches") and row.get("seconds")]
    if not rows:
        return []
    company = ("alone", "subset", "max_memory")
    bits = {(row["job"], row["precision"]): row for row in found["jobs"] if row.get("repeats")}
    lines = [
        "| job | precision | launches | MiB, plan | host | repeats unlike "
        f"| {' | '.join(company)} |",
        f"|---|---|---|---|---|---|{'---|' * len(company)}",
    ]
    for row in rows:
        key = (row["job"], row["precision"])
        memory = f"{row['peak_bytes'] / 2**20:.0f}, {row.get('plan_bytes', 0) / 2**20:.0f}"
        own = bits.get(key, {})
        unlike = f"{own['unlike']} of {own['repeats']}" if own else "–"
        others = [shown(own[kind]) if kind in own else "–" for kind in company]
        cells = [*key, launches_of(row["launches"]), memory, f"{1e3 * row['host_seconds']:.3g} ms"]
        lines.append(f"| {' | '.join([*cells, unlike, *others])} |")
    return lines


def launches_of(found: Row) -> str:
    """Launches, by a profile or by what the host asked for."""
    if "triton" in found:
        return f"{found['operations'] + sum(found['triton'].values()):,} (by the host)"
    return f"{found.get('kernels', 0):,}"


def profile_lines(found: Found) -> list[str]:
    """The kernels of the job that is furthest from its floor, by time."""
    lines: list[str] = []
    for row in found.get("throughput", ()):
        if isinstance(row.get("kernels"), list):
            times = [f"{1e3 * row[name]:.3g}" for name in ("busy_seconds", "seconds")]
            lines += [f"{row['job']} in {row['precision']}, busy {times[0]} of {times[1]} ms:", ""]
            lines += ["| kernel | launches | share |", "|---|---|---|"]
            lines += [
                f"| `{one['name'][:60]}` | {one['launches']:,} | {one['share']:.0%} |"
                for one in row["kernels"][:10]
            ]
    return lines


def fastest_peer(found: Found, name: str, precision: str) -> Row | None:
    """The peer of a job with the shortest time whose error is within our promise of a precision."""
    whole = [row for row in found.get("peers", ()) if row.get("job") == name]
    if all(row["rung"].startswith("hooks") for row in whole):
        return None  # nobody has written more for it, and hooks alone are no measure
    able = [
        row
        for row in whole
        if row.get("rung") not in OURS
        and row.get("seconds")
        and row["error"] is not None
        and row["error"] <= PROMISED[precision]
    ]
    return min(able, key=median, default=None)


def peer_cell(found: Found, row: Row) -> str:
    """The fastest peer as exact as a row of ours, and how many times faster ours is."""
    peer = fastest_peer(found, row["job"], row["precision"])
    if peer is None or not row.get("seconds"):
        return "–"
    ratio = median(peer) / median(row)
    name = f"{peer['rung']} in {peer['precision']}, {time_of(peer)}"
    return f"{name}: **{ratio:.{0 if ratio >= 10 else 1}f}×**"


def ladder_lines(found: Found) -> list[str]:
    """Every rung of every job: from hooks to our kernels."""
    rows = [row for row in found.get("peers", ()) if "rung" in row and "error" in row]
    if not rows:
        return []
    lines = ["| job | rung | precision | error | time |", "|---|---|---|---|---|"]
    for row in rows:
        drawn = f", from {row['sampled']} of {row['of']}" if row.get("sampled") else ""
        names = [row["job"], row["rung"], row["precision"], shown(row["error"])]
        cells = [*names, f"{time_of(row)}{drawn}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def kernel_lines(found: Found) -> list[str]:
    """Each kernel alone, beside what torch makes of its definition."""
    rows = [row for row in found.get("kernels", ()) if "operation" in row and "seconds" in row]
    if not rows:
        return []
    lines = [
        "| kernel | job | precision | error | alone | of the ceiling | torch.compile | SDPA |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        share = f"{row['share']:.0%}" if row.get("share") is not None else "–"
        cells = [row["operation"], row["job"], row["precision"], shown(row["error"])]
        cells += [time_of(row), share]
        cells += [time_of(row, f"{kind}_seconds") for kind in ("compiled", "sdpa")]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, *tuned_lines(found)]


def tuned_lines(found: Found) -> list[str]:
    """Tiles that were faster than those of the table before, and where the new table is."""
    lines = []
    for row in found["kernels"]:
        for one in row.get("kept", ()):
            text = f"{one['kernel']} {one['precision'] or ''} at {one['key']}: {one['tile']}"
            lines.append(f"- {text}, {one['milliseconds']:.3g} ms, before {one['before']:.3g}")
    return (
        ["", "Faster tiles, of the launch table that `--tune` wrote:", "", *lines] if lines else []
    )


def throughput_lines(found: Found) -> list[str]:
    """Variants a second against prompts."""
    rows = [row for row in found.get("throughput", ()) if "variants_a_second" in row]
    if not rows:
        return []
    lines = [
        "| prompts | precision | variants a second | patched prompts a second | memory |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        rates = [f"{row[name]:,.0f}" for name in ("variants_a_second", "patched_prompts_a_second")]
        memory = f"{row['peak_bytes'] / 2**20:.0f} MiB"
        lines.append(f"| {' | '.join([str(row['N']), row['precision'], *rates, memory])} |")
    return lines


def median(row: Row) -> float:
    """Of a row's seconds."""
    return statistics.median(row["seconds"])


def time_of(row: Row | None, name: str = "seconds") -> str:
    """The median of a row's seconds, – where it has none."""
    seconds = row.get(name) if row is not None else None
    return f"{1e3 * statistics.median(seconds):.3g} ms" if seconds else "–"
