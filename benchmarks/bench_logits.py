"""All heads to the logits at END (J1), against two plain transformers passes a sender."""

from __future__ import annotations

import random
import statistics
import time

import pytest
from jobs import gpt2_small, prompts
from peers import two_passes
from rate import matrix_rate

from ioi_fast import explain, path_patch
from ioi_fast.agreement import PROMISED, sweep_error

ROUNDS = 15
CHECKED_SENDERS = 4


@pytest.mark.parametrize("N, T", [(16, 16)])
def bench_heads_to_logits(benchmark, N: int, T: int) -> None:
    model, pairs = gpt2_small(), prompts(N, T)
    plan = explain(path_patch, model, pairs)
    result = path_patch(model, pairs, backend="cpu")
    error = checked_error(model, pairs, result)
    assert error <= PROMISED["fp32"], f"error {error:.1e}: no time is reported for a wrong answer"
    peer, peer_seconds = two_passes(model, pairs), []
    peer()
    rates = [matrix_rate()]

    def run_peer() -> None:
        """Before every round of ours, one of theirs: both see the same machine."""
        begun = time.perf_counter()
        peer()
        peer_seconds.append(time.perf_counter() - begun)

    benchmark.pedantic(
        lambda: path_patch(model, pairs, backend="cpu"), setup=run_peer, rounds=ROUNDS
    )
    rates.append(matrix_rate())
    senders, rate = len(result.senders), statistics.median(rates)
    ours = statistics.median(benchmark.stats.stats.data)
    theirs = statistics.median(peer_seconds)
    benchmark.extra_info.update(
        job=f"all {senders} heads to the logits, N={N}, T={T}",
        peer="two transformers passes a sender",
        backend=result.backend,
        precision=result.precision,
        seconds=sorted(benchmark.stats.stats.data),
        peer_seconds_a_sender=sorted(peer_seconds),
        ratio=senders * theirs / ours,
        error=error,
        floor_flops=plan.flops,
        matrix_rate=rate,
        efficiency=plan.flops / rate / ours,
    )


def checked_error(model, pairs, result) -> float:
    """Error of some senders, drawn with seed 0, against the reference in float64."""
    chosen = sorted(random.Random(0).sample(range(len(result.senders)), CHECKED_SENDERS))
    senders = [result.senders[index] for index in chosen]
    truth = path_patch(model, pairs, senders, backend="reference", precision="fp64")
    return sweep_error(result.values[chosen], truth.values)
