"""Which tile a launch should take, from times alone: whatever a clock's noise says, it has to say
twice, and nowhere may a tile be slower than what it replaces.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ioi_fast.benchmarks.gpu.kernels.shapes import Call
from ioi_fast.kernels.triton_tiles import Launch

GAIN = 0.97  # of the time before: what is worth a row
NOISE = 1.01  # of the time before: what counts as not slower
Timer = Callable[[Call, Launch], float]  # seconds of one run; infinite for a tile that can't be had


@dataclass(frozen=True, slots=True)
class Rounds:
    """Runs of each tile at first, and pairs of alternating runs of a comparison."""

    first: int = 5
    pairs: int = 15


@dataclass(frozen=True, slots=True)
class Choice:
    """A tile that is faster with its median seconds and those before, or why there is none."""

    tile: Launch | None
    why: str
    seconds: float = 0.0
    before: float = 0.0


def chosen(
    group: Sequence[tuple[Call, Launch]],
    tiles: Sequence[Launch],
    time: Timer,
    rounds: Rounds,
    over: Callable[[], bool] = lambda: False,
) -> Choice:
    """The tile for calls that share a key, each with its launch so far; the first weighs most."""
    call, before = group[0]
    medians = {tile: median(time, call, tile, rounds.first) for tile in tiles}
    best = min(tiles, key=medians.__getitem__)
    if best == before or not medians[best] < float("inf"):
        return Choice(None, "today's tile is the fastest")
    for _ in range(2):
        seconds, old = alternating(time, call, best, before, rounds.pairs)
        if not seconds <= GAIN * old:
            return Choice(None, f"gains too little: {seconds / old:.3f} of the time")
    for other, its_own in group[1:]:
        if its_own == best:
            continue
        if over():
            return Choice(None, "no time to time every shape")
        slower = ratio(time, other, best, its_own, rounds.pairs)
        if not slower <= NOISE:
            return Choice(None, f"slower at another shape: {slower:.3f} of the time")
    return Choice(best, "faster", seconds, old)


def median(time: Timer, call: Call, tile: Launch, runs: int) -> float:
    """Median seconds of one tile."""
    return statistics.median(time(call, tile) for _ in range(runs))


def alternating(
    time: Timer, call: Call, tile: Launch, before: Launch, pairs: int
) -> tuple[float, float]:
    """Median seconds of both tiles, run in turn, so that both meet the same of a device's moods."""
    found = [(time(call, tile), time(call, before)) for _ in range(pairs)]
    new, old = zip(*found, strict=True)
    return statistics.median(new), statistics.median(old)


def ratio(time: Timer, call: Call, tile: Launch, before: Launch, pairs: int) -> float:
    """How much of the time before a tile takes."""
    new, old = alternating(time, call, tile, before, pairs)
    return new / old
