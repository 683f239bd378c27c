"""How a job is timed: peers and ours in turn, in one run, and the roof beside them."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ioi_fast import GPT2, PromptPairs, Result
from ioi_fast.benchmarks.rate import matrix_rate
from ioi_fast.results.promised_accuracy import PROMISED, sweep_error

CHECKED = 4
# How near a peer that subtracts whole fp32 runs has to be, of the largest effect.
PEER = {"fp32": 1e-3, "bf16": 2e-2}


@dataclass(frozen=True, slots=True)
class Peer:
    """What others do: a callable that gives the seconds of one unit of the job."""

    name: str
    seconds: Callable[[], float]
    mark: float | None = None  # how many times faster ours should be


def run_job(
    benchmark,
    job: str,
    ours: Callable[[], object],
    peers: list[Peer],
    *,
    units: int,
    unit: str,
    rounds: int,
    flops: int,
    facts: dict[str, object],
    clean_flops: int = 0,
) -> None:
    """Times ours and the peers alternately; the job is `units` of what a peer does at a time.

    In bf16 `clean_flops` of all, those of both runs, are in fp32 and counted at its rate.
    """
    found: dict[str, list[float]] = {peer.name: [] for peer in peers}
    precision = facts["precision"]
    rates = [matrix_rate(precision), matrix_rate("fp32")]

    def run_peers() -> None:
        """Before every round of ours, one of theirs: all see the same machine."""
        for peer in peers:
            found[peer.name].append(peer.seconds())

    benchmark.pedantic(ours, setup=run_peers, rounds=rounds)
    seconds, rate = sorted(benchmark.stats.stats.data), (rates[0] + matrix_rate(precision)) / 2
    median = statistics.median(seconds)
    clean = clean_flops if precision == "bf16" else 0
    floor = (flops - clean) / rate + clean / rates[1]
    benchmark.extra_info.update(
        job=job,
        seconds=seconds,
        units=units,
        unit=unit,
        peers=[
            {
                "name": peer.name,
                "seconds_a_unit": sorted(found[peer.name]),
                "ratio": units * statistics.median(found[peer.name]) / median,
                "mark": peer.mark,
            }
            for peer in peers
        ],
        floor_flops=flops,
        matrix_rate=rate,
        efficiency=floor / median,
        **facts,
    )


def timed(run: Callable[[], object]) -> Callable[[], float]:
    """A callable that gives the seconds of a run."""

    def seconds() -> float:
        begun = time.perf_counter()
        run()
        return time.perf_counter() - begun

    return seconds


def facts(result: Result, error: float) -> dict[str, object]:
    """What a table says of a result; raises AssertionError for a wrong one, which has no speed."""
    assert error <= PROMISED[result.precision], f"error {error:.1e}: no time for a wrong answer"
    return {"backend": result.backend, "precision": result.precision, "error": error}


def checked_error(
    call: Callable, model: GPT2, pairs: PromptPairs, result: Result, asked: list, **more: object
) -> float:
    """Error of some of what was asked, drawn with seed 0, against the reference in float64."""
    chosen = sorted(random.Random(0).sample(range(len(asked)), CHECKED))
    some = [asked[index] for index in chosen]
    truth = call(model, pairs, some, **more, backend="reference", precision="fp64")
    return sweep_error(result.values[chosen], truth.values)


def check_peer(values: Tensor, theirs: Tensor, largest: float, precision: str) -> None:
    """Raises AssertionError unless a peer that subtracts whole fp32 runs has the same values."""
    error = float((values.double() - theirs.double()).abs().max()) / largest
    assert error <= PEER[precision], f"{error:.1e} of the largest effect from the peer: another job"
