"""Each job on the engine: how far off, how long, what it launches and takes, and the same bits.

Of a job and a precision there are three rows: what it is and takes, under CUDA graphs, and whether
its bits depend on what they should not.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from ioi_fast import GPT2
from ioi_fast.benchmarks.gpu import ceilings
from ioi_fast.benchmarks.gpu.clock import Clock, counted
from ioi_fast.benchmarks.gpu.jobs.job import Job, job
from ioi_fast.benchmarks.gpu.jobs.truths import truth_of
from ioi_fast.benchmarks.gpu.jobs.variations import variations
from ioi_fast.benchmarks.gpu.part_files import rows_of
from ioi_fast.benchmarks.gpu.setting import Setting
from ioi_fast.benchmarks.gpu.units import Allowance, Row, Unit, shown
from ioi_fast.benchmarks.roofline import DEVICES, Work
from ioi_fast.engine.wave_graphs import WaveGraphs
from ioi_fast.results.promised_accuracy import PROMISED, sweep_error

ROUNDS = 9
REPEATS = 1000  # of the job that is small enough for it
REPEATED = "J1"
WEIGHTS = {"J1 fp32 bits": 13.0}  # for a thousand repeats
HEAVY = {"J4": 3.0, "J5": 8.0, "J1 at N=100": 2.0}  # shares of the part's time
UNCAPTURED = ("J4", "J5")  # waves of path patches alone are captured
GRAPHS = "IOI_FAST_CUDA_GRAPHS"


def units(setting: Setting) -> Iterator[Unit]:
    """What matters most comes first: every job, then graphs, then bits."""
    for kind, make in KINDS.items():
        for precision in setting.precisions:
            for name in setting.jobs:
                if name == "J6" and (kind or precision != "fp32"):
                    continue  # a forward pass has no differences: nothing of it is in less
                if setting.dry and (name == "J1 at N=100" or (kind and precision != "fp32")):
                    continue  # on its prompts, and in the interpreter, that is the same again
                title = " ".join(filter(None, (name, precision, kind)))
                run = partial(make, setting, name, precision)
                yield Unit(title, run, WEIGHTS.get(title, HEAVY.get(name, 1.0) / (1 + bool(kind))))


def measured(setting: Setting, name: str, precision: str, allowance: Allowance) -> Row:
    """A job as it is: its error first, then what it takes, and whether a second run is the same."""
    one, clock = job(name, setting.dry), Clock(setting.device)
    run, kept = partial(one.run, setting.model, precision), []
    found = begun(one, precision)
    if not clock.on_gpu:
        found["launches"] = counted(lambda: kept.append(run()))
    values = setting.given[name, precision] = kept[0] if kept else run()
    found |= promised(sweep_error(one.chosen(values), truth_of(setting, name)), precision)
    again, took = clock.once(run) if clock.on_gpu else (values, {"seconds": []})
    found |= took
    if not same_bits(again, values):
        found["missed"] = "a second run has other bits"
    host = took.get("host_seconds", 0.0)
    more = clock.seconds(run, allowance.repeats(host, ROUNDS, share=0.6) - 1)
    found["seconds"] = sorted([*took["seconds"], *more])
    if (plan := one.plan(setting.host)) is not None:
        found["plan_bytes"] = plan.peak_bytes
    found |= of_work(setting, one.work(setting.host), found["seconds"], precision)
    if clock.on_gpu:
        # A profile takes far longer than what it sees.
        brief = allowance.left > 20 * host
        found["launches"] = clock.launches(run) if brief else counted(run)
    return found


def begun(one: Job, precision: str) -> Row:
    """What a row is about."""
    return {"job": one.name, "precision": precision, "variants": one.variants}


def promised(error: float, precision: str) -> Row:
    """An error beside its promise; NaN keeps none."""
    found: Row = {"error": error, "promised": PROMISED[precision]}
    if not error <= PROMISED[precision]:
        found["missed"] = f"error {error:.1e}, promised {PROMISED[precision]:.1e}"
    return found


def of_work(setting: Setting, work: Work, seconds: list[float], precision: str) -> Row:
    """FLOPs and bytes, their rates, and the least time by data sheets and by what was measured."""
    found: Row = {
        "flops": work.clean + work.differences,
        "clean_flops": work.clean,
        "bytes": work.bytes,
        "predicted": {one.name: work.seconds(one, precision) for one in DEVICES},
    }
    measured_here = ceilings.device_of(rows_of(setting.out, "device", setting.machine))
    if measured_here is not None:
        found["floor_seconds"] = work.seconds(measured_here, precision)
    if seconds:
        median = statistics.median(seconds)
        found["flops_a_second"] = found["flops"] / median
        found["bytes_a_second"] = work.bytes / median
        if measured_here is not None:
            found["of_floor"] = found["floor_seconds"] / median
    return found


def under_graphs(setting: Setting, name: str, precision: str, allowance: Allowance) -> Row:
    """The same with CUDA graphs: equal bits first, then time, off and on in turn."""
    one, clock = job(name, setting.dry), Clock(setting.device)
    run = partial(one.run, setting.model, precision)
    plain = setting.given[name, precision] if (name, precision) in setting.given else run()
    forget_graphs(setting.model)
    with graphs():
        replayed = [
            run() for _ in range(1 if name in UNCAPTURED else 3)
        ]  # seen, captured, replayed
        captured = graphs_of(setting.model)
        host = clock.once(run)[1]["host_seconds"] if captured else 0.0
    found = {**begun(one, precision), "captured": captured}
    unequal = sum(not same_bits(plain, values) for values in replayed)
    if unequal:
        more = f"{unequal} of {len(replayed)} runs have other bits than without graphs"
        return {**found, "missed": more}
    times: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(allowance.repeats(2 * (host or 0.0), ROUNDS, share=0.8) if captured else 0):
        for on, seconds in times.items():
            with graphs(on):
                seconds += clock.seconds(run, 1)
    return {**found, "seconds": sorted(times[True]), "plain_seconds": sorted(times[False])}


@contextmanager
def graphs(on: bool = True) -> Iterator[None]:
    """Calls run under CUDA graphs while it is open, or do not."""
    before = os.environ.pop(GRAPHS, None)
    if on:
        os.environ[GRAPHS] = "1"
    try:
        yield
    finally:
        os.environ.pop(GRAPHS, None)
        if before is not None:
            os.environ[GRAPHS] = before


def graphs_of(model: GPT2) -> int:
    """Graphs that a model keeps."""
    kept = [one for one in model.made.packed.values() if isinstance(one, WaveGraphs)]
    return sum(len(one._captured) for one in kept)


def forget_graphs(model: GPT2) -> None:
    """Lets go of them, and of the memory that they work in."""
    for key in [key for key, one in model.made.packed.items() if isinstance(one, WaveGraphs)]:
        del model.made.packed[key]


def bits(setting: Setting, name: str, precision: str, allowance: Allowance) -> Row:
    """Whether the same call gives the same bits, and how far off it is in other company."""
    one, clock = job(name, setting.dry), Clock(setting.device)
    run = partial(one.run, setting.model, precision)
    first = setting.given[name, precision] if (name, precision) in setting.given else run()
    again, took = clock.once(run)
    unlike, repeats = int(not same_bits(again, first)), 1
    if clock.on_gpu and name == REPEATED:
        repeats += allowance.repeats(took["host_seconds"], REPEATS - 1, share=0.6)
        unlike += sum(not same_bits(run(), first) for _ in range(repeats - 1))
    found = {**begun(one, precision), "repeats": repeats, "unlike": unlike}
    if unlike:
        found["missed"] = f"{unlike} of {repeats} repeats have other bits"
    largest = float(first.abs().max())
    for kind, (values, whole) in variations(setting, one, precision, first):
        found[kind] = float((values.double() - whole.double()).abs().max()) / largest
    return found


def same_bits(values: Tensor, others: Tensor) -> bool:
    """Equal in every bit: NaN equals itself and 0 is not −0."""
    return torch.equal(values.view(torch.int32), others.view(torch.int32))


KINDS: dict[str, Callable[..., Row]] = {"": measured, "graphs": under_graphs, "bits": bits}


def line(row: Row) -> str:
    """A row in one line; what is predicted is called that."""
    if "captured" in row:
        return graphs_line(row)
    if "repeats" in row:
        kinds = ("alone", "subset", "max_memory")
        company = ", ".join(f"{kind} {shown(row[kind])}" for kind in kinds if kind in row)
        return f"{row['unlike']} of {row['repeats']} repeats unlike; of the largest: {company}"
    text = f"error {shown(row['error'])}, {milliseconds(row['seconds'])}"
    if row["seconds"]:
        text += f", {row['flops_a_second'] / 1e12:.1f} TFLOP/s"
        text += f", {row['bytes_a_second'] / 1e9:.0f} GB/s"
    if "of_floor" in row:
        text += f", {row['of_floor']:.0%} of the floor"
    if row.get("launches"):
        text += f", {launches_line(row['launches'])}"
    if row.get("peak_bytes") is not None and "plan_bytes" in row:
        text += f", {row['peak_bytes'] / 2**20:.0f} MiB (plan {row['plan_bytes'] / 2**20:.0f})"
    return text


def launches_line(found: Row) -> str:
    """What a call asks of the device."""
    if "triton" in found:
        kernels = sum(found["triton"].values())
        return f"{found['operations']:,} operations of torch, {kernels:,} kernels"
    copies = sum(count for name, count in found.items() if name.startswith("copies"))
    busy = f"busy {1e3 * found['busy_seconds']:.1f} ms"
    return f"{found.get('kernels', 0):,} launches, {copies:,} copies, {busy}"


def graphs_line(row: Row) -> str:
    """What graphs gain."""
    if not row["captured"]:
        return "nothing of it is captured"
    if not row.get("seconds"):
        return f"{row['captured']} captured; dry: not timed"
    plain = milliseconds(row["plain_seconds"])
    return f"{row['captured']} captured: {milliseconds(row['seconds'])}, without {plain}"


def milliseconds(seconds: list[float]) -> str:
    """A median."""
    return f"{1e3 * statistics.median(seconds):.2f} ms" if seconds else "dry: not timed"
