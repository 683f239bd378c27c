"""Variants a second against prompts, up to the end of the memory, and one profile by kernel."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator
from functools import partial

import torch
from torch.profiler import ProfilerActivity, profile

from ioi_fast import path_patch
from ioi_fast.benchmarks.gpu.clock import Clock, counted, on_device
from ioi_fast.benchmarks.gpu.jobs.job import job
from ioi_fast.benchmarks.gpu.part_files import rows_of
from ioi_fast.benchmarks.gpu.setting import Setting
from ioi_fast.benchmarks.gpu.units import Allowance, Row, Unit
from ioi_fast.benchmarks.jobs import prompts

PROMPTS = tuple(4**power for power in range(9))  # 1 to 65,536
DRY_PROMPTS = (1,)
SHOWN = 25  # kernels of a profile


def units(setting: Setting) -> Iterator[Unit]:
    """The profile first: what may end for want of memory or time comes last."""
    yield Unit("profile", partial(profiled, setting), weight=2.0)
    counts = DRY_PROMPTS if setting.dry else PROMPTS
    for precision in setting.precisions:
        ended: list[str] = []
        for N in counts:
            run = partial(swept, setting, precision, N, ended)
            yield Unit(f"N={N} {precision}", run, weight=1.0 + N / 1e4)


def swept(setting: Setting, precision: str, N: int, ended: list[str], allowance: Allowance) -> Row:
    """J1 on N prompts: variants are heads, and a head on a prompt is one patched prompt."""
    if ended:
        return {"left_out": ended[0]}
    clock, model = Clock(setting.device), setting.model
    pairs = prompts(N, 12, 61) if setting.dry else prompts(N, 16)
    run = partial(path_patch, model, pairs, precision=precision, backend="triton")
    try:
        run()  # so that all is compiled
        _, took = clock.once(run)
        host = took["host_seconds"] or 0.0
        more = clock.seconds(run, allowance.repeats(host, 5) - 1)
    except torch.OutOfMemoryError as reason:
        torch.cuda.empty_cache()
        ended.append(f"N={N} needs more memory than there is")
        return {"N": N, "precision": precision, "ended": str(reason).splitlines()[0]}
    if clock.on_gpu and 4 * host > allowance.left:
        ended.append(f"no time: N={N} took {host:.1f} s")
    variants = model.config.n_layer * model.config.n_head
    found = {"N": N, "precision": precision, "variants": variants, **took}
    found["seconds"] = sorted([*took["seconds"], *more])
    if found["seconds"]:
        median = statistics.median(found["seconds"])
        found["variants_a_second"] = variants / median
        found["patched_prompts_a_second"] = variants * N / median
    return found


def profiled(setting: Setting, allowance: Allowance) -> Row:
    """What the device does in the job that is furthest from its floor, by kernel."""
    name, precision = furthest(setting)
    one, clock = job(name, setting.dry), Clock(setting.device)
    run = partial(one.run, setting.model, precision)
    found: Row = {"job": name, "precision": precision}
    if not clock.on_gpu:
        return {**found, "kernels": counted(run)}
    run()  # so that all is compiled
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        _, took = clock.once(run)
    spent, counts = Counter(), Counter()
    for event in on_device(seen.events()):
        spent[event.name] += event.time_range.elapsed_us() / 1e6
        counts[event.name] += 1
    busy = sum(spent.values())
    shown = [
        {"name": kernel[:160], "launches": counts[kernel], "seconds": took, "share": took / busy}
        for kernel, took in spent.most_common(SHOWN)
    ]
    return {**found, "seconds": took["seconds"][0], "busy_seconds": busy, "kernels": shown}


def furthest(setting: Setting) -> tuple[str, str]:
    """The job and precision with the least share of its floor; the first where none is known."""
    known = [row for row in rows_of(setting.out, "jobs", setting.machine) if row.get("of_floor")]
    known = [row for row in known if row["job"] in setting.jobs]
    if not known:
        return setting.jobs[0], setting.precisions[0]
    least = min(known, key=lambda row: row["of_floor"])
    return least["job"], least["precision"]


def line(row: Row) -> str:
    """A row in one line."""
    if "kernels" in row:
        return profile_line(row)
    if "ended" in row:
        return f"the end of the memory: {row['ended'][:120]}"
    if not row["seconds"]:
        return "dry: not timed"
    peak = f", {row['peak_bytes'] / 2**20:.0f} MiB" if row["peak_bytes"] is not None else ""
    rates = f"{row['variants_a_second']:,.0f} variants, "
    rates += f"{row['patched_prompts_a_second']:,.0f} patched prompts a second"
    return f"{1e3 * statistics.median(row['seconds']):.2f} ms, {rates}{peak}"


def profile_line(row: Row) -> str:
    """Where a job's time goes."""
    text = f"{row['job']} in {row['precision']}"
    if not isinstance(row["kernels"], list):
        return f"{text}, dry: {row['kernels']['operations']} operations, not timed"
    busy = f"busy {row['busy_seconds'] / row['seconds']:.0%} of {1e3 * row['seconds']:.1f} ms"
    first = ", ".join(f"{one['name'][:40]} {one['share']:.0%}" for one in row["kernels"][:4])
    return f"{text}, {busy}: {first}"
