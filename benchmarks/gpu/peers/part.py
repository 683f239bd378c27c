"""Peers on the same device, equality first: from hooks to plain torch as fast as it can be written,
and our kernels at the end of the same ladder."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from functools import cache, partial

import torch

from ioi_fast.benchmarks.gpu.jobs.job import job
from ioi_fast.benchmarks.gpu.peers import rows as peer_rows
from ioi_fast.benchmarks.gpu.peers.hooked import hooked_model
from ioi_fast.benchmarks.gpu.peers.plain_gpt2 import Steps
from ioi_fast.benchmarks.gpu.setting import Setting
from ioi_fast.benchmarks.gpu.units import Allowance, Row, Unit

LADDER = ("J1", "J4", "J5")
# Methods of the hooked peers, by the names of their rungs.
HOOKS = {"hooks, two passes": "two_passes", "hooks, one pass": "one_pass"}
HOOKED = {
    "J1": tuple(HOOKS),
    "J2": ("hooks, two passes",),
    "J3": ("hooks, two passes",),
    "J4": ("hooks, one pass",),
    "J5": tuple(HOOKS),
}
# What a unit may take, beside others.
WEIGHTS = {"hooks": 2.0, "batched": 2.0, "cone": 1.5, "compiled": 4.0, "ours": 2.0}
HEAVY = {"J4": 0.5, "J5": 3.0}
FIRST = {"J1 hooks, two passes fp32": 6.0}  # transformers is loaded and its model made
# A wave of J1 is small enough to wait for its launches. Sweeps over pairs and knock-outs have more
# to do than to launch, and of ours nothing is replayed there.
RECORDED = ("J1",)


def units(setting: Setting) -> Iterator[Unit]:
    """The ladder of each job, from its foot."""

    @cache
    def model() -> torch.nn.Module:
        return hooked_model(setting.host, setting.device)

    for name in setting.jobs:
        for rung in HOOKED.get(name, ()):
            run = partial(peer_rows.hooked, setting, name, HOOKS[rung], model)
            yield _unit(name, rung, "fp32", run)
        if name in LADDER:
            run = partial(peer_rows.by_lens, setting, name)
            yield _unit(name, "TransformerLens", "fp32", run)
            yield from _plain(setting, name)
            yield from _ours(setting, name)


def _plain(setting: Setting, name: str) -> Iterator[Unit]:
    """Plain torch: batched, then the engine's cells, compiled, and as one CUDA graph."""
    rungs: list[tuple[str, Callable]] = [
        ("batched", partial(_sweep, peer_rows.BATCHED)),
        ("cone", partial(_sweep, peer_rows.CONES)),
        ("compiled", _compiled),
    ]
    if name in RECORDED:
        rungs.append(("recorded", _recorded))
    for rung, make in rungs:
        # Whole runs of fp32 may be too rough when they are subtracted: those of fp64 are not.
        more = ("fp64",) if rung == "cone" else ()
        # In a dry run nothing is compiled, and each precision is traced for some seconds.
        few = setting.dry and rung == "compiled"
        for precision in (*setting.precisions[: 1 if few else None], *more):
            yield _unit(name, rung, precision, partial(make, setting, name, precision))


def _ours(setting: Setting, name: str) -> Iterator[Unit]:
    """The engine; in the interpreter of a dry run, what other parts do not run anyway."""
    for rung, graphs in (("ours", False), ("graphs", True)):
        if graphs and name not in RECORDED:
            continue
        for precision in setting.precisions[: 1 if setting.dry else None]:
            if not (setting.dry and name == "J5"):
                run = partial(peer_rows.ours, setting, name, precision, graphs)
                yield _unit(name, rung, precision, run, kernels=True)


def _unit(
    name: str, rung: str, precision: str, run: Callable[[Allowance], Row], kernels: bool = False
) -> Unit:
    about = {"job": name, "rung": rung, "precision": precision}

    def row(allowance: Allowance) -> Row:
        try:
            return {**about, "seconds": [], **run(allowance)}
        finally:
            if torch.cuda.is_available():
                torch.cuda.empty_cache()  # what a peer has taken is not ours to keep

    title = f"{name} {rung} {precision}"
    weight = WEIGHTS.get(rung.split(",")[0], 1.0) * HEAVY.get(name, 1.0)
    return Unit(title, row, FIRST.get(title, weight), kernels)


def _sweep(kinds: dict, setting: Setting, name: str, precision: str, allowance: Allowance) -> Row:
    one = job(name, setting.dry)
    return peer_rows.plain(setting, one, kinds[name], precision, Steps(), False, allowance)


@cache
def compiled_steps(backend: str) -> Steps:
    """One for all jobs of a process, which then compiles each of them once."""
    # Three precisions, and shapes of several jobs: past the limit torch runs uncompiled.
    torch._dynamo.config.recompile_limit = 64
    return Steps.compiled(backend)


def _compiled(setting: Setting, name: str, precision: str, allowance: Allowance) -> Row:
    backend = "eager" if setting.dry else "inductor"
    steps, before = compiled_steps(backend), compilations()
    one, kind = job(name, setting.dry), peer_rows.CONES[name]
    row = peer_rows.plain(setting, one, kind, precision, steps, False, allowance)
    graphs = compilations() - before
    row |= {"compile_backend": backend, "compiled_graphs": graphs}
    timed = graphs and not setting.dry
    return {**row, "compile_seconds": row["first_seconds"]} if timed else row


def compilations() -> int:
    """Graphs that torch.compile has made in this process."""
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def _recorded(setting: Setting, name: str, precision: str, allowance: Allowance) -> Row:
    """The cone as one CUDA graph, of compiled steps where torch.compile works here."""
    one, kind = job(name, setting.dry), peer_rows.CONES[name]
    row: Row = {"steps": "compiled"}
    if not setting.dry:
        try:
            steps = compiled_steps("inductor")
            return row | peer_rows.plain(setting, one, kind, precision, steps, True, allowance)
        except Exception as problem:
            row = {"steps": f"as they stand: {type(problem).__name__}: {str(problem)[:200]}"}
    return row | peer_rows.plain(setting, one, kind, precision, Steps(), True, allowance)


def line(row: Row) -> str:
    """A row in one line."""
    error = row.get("error")
    text = "error –" if error is None else f"error {error:.0e}"
    text += "" if row.get("meets") else " (more than ours)"
    seconds = row.get("seconds")
    text += f", {1e3 * statistics.median(seconds):.3g} ms" if seconds else ", not timed"
    if row.get("sampled"):
        text += f", from {row['sampled']:,} of {row['of']:,}"
    if row.get("batch", 1) > 1:
        text += f", {row['batch']:,} at a time"
    if row.get("compile_seconds"):
        text += f", {row['compile_seconds']:.0f} s with compiling ({row['compile_backend']})"
    return text
