"""Each kernel alone at the shapes that the jobs hand to it: time, share of the ceiling, error,
beside torch's compiler on the same operation.

A row is an operation in a job, and in each precision where something is multiplied; its shape is
the one that takes the most of the job. Only kernels are timed, not what prepares their inputs.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from ioi_fast.benchmarks import roofline
from ioi_fast.benchmarks.gpu.clock import Clock
from ioi_fast.benchmarks.gpu.kernels import peers as kernel_peers
from ioi_fast.benchmarks.gpu.kernels import tuning
from ioi_fast.benchmarks.gpu.kernels.alone import (
    PROMISED_OF_A_KERNEL,
    kernels_of,
    launched_on,
    meant,
    precisions_of,
)
from ioi_fast.benchmarks.gpu.kernels.costs import cost, work
from ioi_fast.benchmarks.gpu.kernels.shapes import Call, calls_of, heaviest, recorded_on
from ioi_fast.benchmarks.gpu.part_files import rows_of
from ioi_fast.benchmarks.gpu.setting import PRECISIONS, Setting
from ioi_fast.benchmarks.gpu.units import Allowance, Row, Unit

JOBS = ("J1", "J1 at N=100", "J2", "J3", "J4", "J5")
# What jobs launch; of knock-outs no head writes alone.
LAUNCHED = ("layernorm_delta", "readout_delta", "head_write", "mlp_in_delta", "attention_delta")
MOST = 50  # repeats
CLEARING = 2e-4  # seconds a repeat that clear the device's cache
FIRST = 6.0  # weight of the first job's units: they compile what the others use again


def units(setting: Setting) -> Iterator[Unit]:
    """Every operation of every job, and with `tune` the tiles of each."""
    jobs = [name for name in setting.jobs if name in JOBS]
    measures = (unit for name in jobs for unit in units_of(setting, name, name == jobs[0]))
    if not setting.tune:
        yield from measures
        return
    yield tuning.compiled_ahead(setting)
    yield from measures
    yield from tuning.units(setting, jobs)


def units_of(setting: Setting, name: str, first: bool) -> Iterator[Unit]:
    """A job's shapes and each of its operations; a dry run multiplies in other precisions in the
    first job alone."""
    yield Unit(f"shapes {name}", lambda _: shapes(setting, name), FIRST if first else 1.0)
    for operation in LAUNCHED:
        if (name, operation) == ("J4", "head_write"):
            continue
        for precision in precisions_of(setting, operation):
            if precision == PRECISIONS[0] or first or not setting.dry:
                run = unit_of(setting, name, operation, precision)
                yield Unit(f"{operation} {name} {precision}", run, FIRST if first else 1.0)


def shapes(setting: Setting, name: str) -> Row:
    """How often a job calls each operation, and with how many different shapes."""
    calls = calls_of(setting, name)
    often, kinds = Counter(), Counter()
    for call, count in calls.items():
        often[call.operation] += count
        kinds[call.operation] += 1
    found = {"shapes_of": name, "recorded_on": recorded_on(setting, name)}
    return {**found, "calls": dict(often), "different": dict(kinds)}


def unit_of(setting: Setting, name: str, operation: str, precision: str) -> Callable:
    """What makes the row of an operation in a job."""

    def run(allowance: Allowance) -> Row:
        calls = calls_of(setting, name)
        call = heaviest(calls, operation, work)
        row = {"operation": operation, "job": name, "precision": precision}
        row |= {"recorded_on": recorded_on(setting, name)}
        if call is None:
            return {**row, "launches": 0}
        row |= {"shapes": call.described(), "launches": calls[call]}
        with launched_on(setting.device), torch.no_grad():
            return row | measured(setting, call, precision, allowance)

    return run


def measured(setting: Setting, call: Call, precision: str, allowance: Allowance) -> Row:
    """Error and times of one call's kernels, and of the same by others."""
    clock, given = Clock(setting.device), call.inputs(setting.device)
    truth = kernel_peers.exact(call.operation, given)
    out, run = kernels_of(call.operation, given, meant(precision, setting.dry))
    found = {"error": kernel_peers.error_of(out, truth)}
    if not found["error"] <= PROMISED_OF_A_KERNEL[precision]:
        found["missed"] = f"error {found['error']:.1e} above {PROMISED_OF_A_KERNEL[precision]:.1e}"
    run()  # in a dry run too, where nothing is timed
    first = clock.cold_seconds(run, 3)
    repeats = allowance.repeats(first[1] + CLEARING, MOST, share=0.2) if first else 0
    found["seconds"] = clock.cold_seconds(run, repeats) if first else []
    found |= of_the_floor(setting, call, precision, found["seconds"])
    asked = (given, truth, precision, repeats)
    if call.operation == "attention_delta":
        found |= kernel_peers.beside_sdpa(clock, *asked)
    no_time = allowance.left <= 0
    return found | kernel_peers.beside_compiled(clock, call.operation, *asked, no_time)


@dataclass(frozen=True, slots=True)
class Ceilings:
    """Bytes and FLOPs a second that a device reaches, and who says so."""

    bandwidth: float
    rate: float
    source: str


def ceilings(setting: Setting, precision: str) -> Ceilings | None:
    """What this run has measured, else the device's data sheet; None if there is neither."""
    rows = {row["unit"]: row for row in rows_of(setting.out, "device", setting.machine)}
    bandwidth = rows.get("copy", {}).get("bytes_a_second")
    rate = rows.get(f"product {precision} J1", {}).get("flops_a_second")
    if bandwidth and rate:
        return Ceilings(bandwidth, rate, "measured")
    if setting.dry:
        return None
    name, tera = setting.machine["device"], 1e12
    for device in roofline.DEVICES:
        if device.name.split()[0] in name:
            return Ceilings(device.bandwidth * tera, device.rates[precision] * tera, "data sheet")
    return None


def of_the_floor(setting: Setting, call: Call, precision: str, seconds: list[float]) -> Row:
    """Bytes and FLOPs of a call, the least time they take, and how near its kernels come to it."""
    needed, found = cost(call), ceilings(setting, precision)
    row = {"bytes": needed.bytes, "flops": needed.flops}
    if found is None:
        return {**row, "ceilings": None}
    floor = needed.seconds(found.bandwidth, found.rate)
    row |= {"ceilings": found.source, "floor_seconds": floor}
    return {**row, "share": floor / statistics.median(seconds)} if seconds else row


def line(row: Row) -> str:
    """A row in one line."""
    if "shapes_of" in row:
        return f"{sum(row['calls'].values())} calls, {sum(row['different'].values())} shapes"
    if "job" not in row:
        return tuning.line(row)
    if not row["launches"]:
        return "not launched there"
    # In a file NaN is None.
    text = "error NaN" if row["error"] is None else f"error {row['error']:.0e}"
    if not row["seconds"]:
        return f"{text}, dry: not timed"
    median = statistics.median(row["seconds"])
    text = f"{1e3 * median:.4f} ms, {text}"
    if "share" in row:
        text += f", {row['share']:.0%} of the ceiling"
    for name, what in (("compiled", "torch.compile"), ("sdpa", "SDPA")):
        others = row.get(f"{name}_seconds")
        if others:
            text += f", {what} {statistics.median(others) / median:.2f} times that"
        elif name in row:
            text += f", {what} {row[name]}"
    return text
