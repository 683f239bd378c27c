"""A row of each kind of peer: its error first, and its time where the answer is the same job's."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec

import torch
from torch import Tensor

from ioi_fast.benchmarks.gpu.clock import Clock, Run
from ioi_fast.benchmarks.gpu.jobs import part as job_runs
from ioi_fast.benchmarks.gpu.jobs.job import Job, job
from ioi_fast.benchmarks.gpu.jobs.truths import truth_of
from ioi_fast.benchmarks.gpu.peers.hooked import HookedPaths, HookedSets
from ioi_fast.benchmarks.gpu.peers.lens import lens, why_not
from ioi_fast.benchmarks.gpu.peers.plain_gpt2 import PlainGPT2, Steps, products
from ioi_fast.benchmarks.gpu.peers.plain_pairs import PairCone, PairSweep
from ioi_fast.benchmarks.gpu.peers.plain_paths import PathCone, PathSweep
from ioi_fast.benchmarks.gpu.peers.plain_set_cone import SetCone
from ioi_fast.benchmarks.gpu.peers.plain_sets import SetSweep
from ioi_fast.benchmarks.gpu.peers.plain_sweep import Sweep, fitting
from ioi_fast.benchmarks.gpu.setting import Setting
from ioi_fast.benchmarks.gpu.units import Allowance, Row
from ioi_fast.benchmarks.measure import PEER
from ioi_fast.kernels.triton_graph import recorded, rehearsed
from ioi_fast.results.promised_accuracy import PROMISED, sweep_error

BATCHED: dict[str, type[Sweep]] = {"J1": PathSweep, "J4": SetSweep, "J5": PairSweep}
CONES: dict[str, type[Sweep]] = {"J1": PathCone, "J4": SetCone, "J5": PairCone}
DRAWN = {"J5": 50}  # of other jobs 20
LEAST = 5  # are timed, however short the time
# How near peers have to be, of the largest effect: they subtract whole runs, in which rounding
# takes small effects first. What is further off is another job, or no answer.
NEAR = {"fp32": PEER["fp32"], "fp64": PEER["fp32"], "tf32": 0.5, "bf16": 0.5}
# A peer in fp64 is beside our fp32: some GPUs multiply both at one rate.
BESIDE = {"fp64": "fp32"}
REPEATS = 5
SHARE = 0.7  # of what a unit has left, for its times


def verdict(values: Tensor, truth: Tensor, precision: str) -> Row:
    """The error of values, whether it meets our promise, and whether this is another job."""
    values = values.cpu().double()
    try:
        error = sweep_error(values, truth)
    except AssertionError as problem:
        return {"error": float("nan"), "meets": False, "missed": str(problem)}
    far = float((values - truth).abs().max() / truth.abs().max())
    promised = PROMISED[BESIDE.get(precision, precision)]
    row: Row = {"error": error, "of_largest": far, "meets": error <= promised}
    if not far <= NEAR[precision]:
        row["missed"] = f"off by {far:.1e} of the largest effect: no time for a wrong answer"
    return row


def timed(clock: Clock, run: Run, allowance: Allowance, scale: float = 1.0) -> list[float]:
    """Seconds of a run that has been warmed up, ascending, as many times as may be."""
    seconds = clock.seconds(run, 1)
    if seconds:
        more = allowance.repeats(seconds[0], REPEATS, SHARE) - 1
        seconds += clock.seconds(run, more) if more else []
    return sorted(scale * one for one in seconds)


def ours(setting: Setting, name: str, precision: str, graphs: bool, allowance: Allowance) -> Row:
    """Our engine, whose answer has to be as exact as it promises."""
    one, clock = job(name, setting.dry), Clock(setting.device)
    run = partial(one.run, setting.model, precision)
    with job_runs.graphs(graphs):
        # With graphs the second call records and the third is the first to replay.
        values = [run() for _ in range(3 if graphs else 1)][-1]
        row = verdict(one.chosen(values), truth_of(setting, name), precision)
        if not row["meets"]:
            row["missed"] = f"error {row['error']:.1e}, promised {PROMISED[precision]:.1e}"
        elif clock.on_gpu:
            row["seconds"] = timed(clock, run, allowance)
    if graphs:
        job_runs.forget_graphs(setting.model)
    return row


def hooked(setting: Setting, name: str, way: str, model: Callable, allowance: Allowance) -> Row:
    """transformers with hooks, one intervention at a time; `way` is a method of `HookedPaths`."""
    if find_spec("transformers") is None:
        return {"left_out": "transformers is not installed"}
    one, clock = job(name, setting.dry), Clock(setting.device)
    with products("fp32"):
        kind = HookedSets if name == "J4" else HookedPaths
        act = getattr(kind(model(), one, setting.device), way)
        return one_by_one(setting, one, act, clock, allowance)


def one_by_one(
    setting: Setting, one: Job, act: Callable[[object], Tensor], clock: Clock, allowance: Allowance
) -> Row:
    """Some interventions, drawn, for all: those of the sample are checked, all of them timed."""
    every = everything(one, setting)
    items = drawn(one, every, DRAWN.get(one.name, 20))
    act(items[0])  # the first of all takes longer
    clock.wait()
    begun = time.perf_counter()
    row = checked(setting, one, {str(item): act(item) for item in items})
    clock.wait()
    of_one = (time.perf_counter() - begun) / len(items)
    if "missed" in row:
        return row
    items = items[: max(LEAST, int(SHARE * allowance.left / of_one))]

    def run() -> None:
        for item in items:
            act(item)

    seconds = timed(clock, run, allowance, len(every) / len(items))
    return {**row, "seconds": seconds, "sampled": len(items), "of": len(every), "batch": 1}


def everything(one: Job, setting: Setting) -> Sequence[object]:
    """All interventions of a job: senders that reach a receiver, sets, or pairs."""
    L, H = setting.host.config.n_layer, setting.host.config.n_head
    heads = [(layer, head) for layer in range(L) for head in range(H)]
    if one.name == "J4":
        return one.asked["variants"]
    if one.name == "J5":
        return [(i, *s, *r) for i in range(3) for s in heads for r in heads if s[0] < r[0]]
    names = one.asked["receivers"]
    until = L if names == "logits" else max(int(name.split(".")[0]) for name in names)
    return [f"{layer}.{head}" for layer, head in heads if layer < until]


def drawn(one: Job, every: Sequence[object], count: int) -> list[object]:
    """What is checked and timed: of the job's sample first, whose truth is known."""
    known = [item for item in one.sample if item in every][:count]
    others = [item for item in every if item not in known]
    return known + random.Random(0).sample(others, min(count - len(known), len(others)))


def checked(setting: Setting, one: Job, values: dict[str, Tensor]) -> Row:
    """The verdict on values by item, of those whose truth is known."""
    known = [n for n, item in enumerate(one.sample) if str(item) in values]
    found = torch.stack([values[str(one.sample[n])] for n in known])
    truth = truth_of(setting, one.name)[known]
    return {**verdict(found, truth, "fp32"), "checked": len(known)}


def by_lens(setting: Setting, name: str, allowance: Allowance) -> Row:
    """TransformerLens, or why it is left out; its seconds are the host's, values with them."""
    reason = why_not(name)
    if reason is not None:
        return {"left_out": reason}
    one, spent = job(name, setting.dry), {}
    every = everything(one, setting)
    items = drawn(one, every, DRAWN.get(name, 20))
    with products("fp32"), lens(setting, one) as peer:
        base = peer.base()
        row = checked(setting, one, {str(i): peer.values(i) - base for i in items})
        if "missed" in row:
            return row
        begun = time.perf_counter()
        for item in items:
            if spent and time.perf_counter() - begun > SHARE * allowance.left:
                break
            spent[str(item)] = peer.answer(item)["seconds"]
    whole = [sum(spent.values()) * len(every) / len(spent)] if not setting.dry else []
    return {**row, "seconds": whole, "sampled": len(spent), "of": len(every), "batch": 1}


def plain(
    setting: Setting, one: Job, kind: type[Sweep], precision: str, steps: Steps,
    record: bool, allowance: Allowance,
) -> Row:  # fmt: skip
    """A sweep in plain torch, with what fits together; `record` replays it as a CUDA graph."""
    clock, begun = Clock(setting.device), time.perf_counter()
    with products(precision):
        sweep = kind(PlainGPT2.of(setting.model, precision, steps), one)
        # A cone of J1 or J4 is so small that its sample is nearly as much as all of it.
        whole = setting.dry or record or (kind in CONES.values() and one.name != "J5")
        some = range(sweep.pieces) if whole else sweep.sampled()
        size, values = fitting(lambda size: sweep.prepared(some, size)(), sweep.guess())
        clock.wait()
        row = verdict(one.chosen(values.cpu()), truth_of(setting, one.name), precision)
        del values
        row["batch"] = size * sweep.each
        if clock.on_gpu:
            row["first_seconds"] = time.perf_counter() - begun
        if "missed" in row:
            return row
        if record:
            return {**row, **replayed(setting, one, sweep, size, precision, clock, allowance)}
        return {**row, **times(sweep, some, size, clock, allowance)}


def times(sweep: Sweep, some: Sequence[int], size: int, clock: Clock, allowance: Allowance) -> Row:
    """Seconds of the whole job, or of as many of its pieces, evenly drawn, as there is time for."""
    run = sweep.prepared(some, size)
    found = clock.seconds(run, 1)
    if not found:
        return {"seconds": []}
    most = int(len(some) * SHARE * allowance.left / found[0])
    count = min(sweep.pieces, max(min(size, sweep.pieces), most))
    if count > len(some):
        run = sweep.prepared([n * sweep.pieces // count for n in range(count)], size)
    else:
        count = len(some)
    row: Row = {"seconds": timed(clock, run, allowance, sweep.pieces / count)}
    if count < sweep.pieces:
        row |= {"sampled": count * sweep.each, "of": sweep.pieces * sweep.each}
    return row


def replayed(
    setting: Setting, one: Job, sweep: Sweep, size: int, precision: str, clock: Clock,
    allowance: Allowance,
) -> Row:  # fmt: skip
    """The whole job as one CUDA graph, whose values are checked too."""
    run = sweep.prepared(range(sweep.pieces), size)
    run()
    clock.wait()
    again = (recorded if clock.on_gpu else rehearsed)(run)
    values = again().clone()
    clock.wait()
    row = verdict(one.chosen(values.cpu()), truth_of(setting, one.name), precision)
    return row if "missed" in row else {**row, "seconds": timed(clock, again, allowance)}
