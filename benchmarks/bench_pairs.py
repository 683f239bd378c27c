"""Every pair of heads (J5) against TransformerLens 4.3, which runs one pass a pair."""

from __future__ import annotations

import pytest
import torch

from ioi_fast import explain, pair_sweep, path_patch
from ioi_fast.benchmarks.jobs import Cell, cells, gpt2_small, prompts
from ioi_fast.benchmarks.measure import Peer, check_peer, run_job
from ioi_fast.benchmarks.peer_process import peer_process
from ioi_fast.results.promised_accuracy import PROMISED, sweep_error

CELLS = 50
CHECKED = 3
MARKS = {"fp32": 11, "bf16": 23}


@pytest.mark.long
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def bench_every_pair(benchmark, precision: str) -> None:
    model, pairs = gpt2_small(), prompts(8, 16)
    plan = explain(pair_sweep, model, pairs)
    found = []

    def ours() -> None:
        asked = {"per_prompt": True, "backend": "cpu", "precision": precision}
        found.append(pair_sweep(model, pairs, **asked))

    with peer_process(model, pairs, "transformer_lens_4") as worker:
        drawn = iter(cells(12, 12, CELLS))

        def some_pairs() -> float:
            """Seconds of a pair: the mean over all cells, since a sweep is their sum."""
            return sum(ask(worker, cell)["seconds"] for cell in drawn) / CELLS

        ask(worker, cells(12, 12, 1)[0])
        run_job(
            benchmark,
            f"J5: every pair of heads x q, k, v, N=8, T=16, {precision}",
            ours,
            [Peer("a TransformerLens 4.3 direct path", some_pairs, MARKS[precision])],
            units=3 * 66 * 144,
            unit=f"pair (mean of {CELLS} drawn)",
            rounds=1,
            flops=plan.flops,
            clean_flops=plan.clean_flops,
            facts={"backend": "cpu/c++", "precision": precision, "error": float("nan")},
        )
        result = found[-1]
        largest = float(result.values.abs().max())
        for cell in cells(12, 12, CELLS)[:10]:
            theirs = torch.tensor(ask(worker, cell)["values"])
            check_peer(result.values[cell], theirs, largest, precision)
    error = max(true_error(model, pairs, result, cell) for cell in cells(12, 12, CHECKED))
    assert error <= PROMISED[precision]
    benchmark.extra_info.update(backend=result.backend, error=error)


def ask(worker, cell: Cell) -> dict:
    """One pair by the peer."""
    index, a, b, c, d = cell
    return worker.ask("pair", sender=[a, b], receiver=[c, d], site="qkv"[index])


def true_error(model, pairs, result, cell: Cell) -> float:
    """Error of all senders of a receiver that were drawn with it, against the float64 reference."""
    index, a, _, c, d = cell
    senders = [f"{a}.{head}" for head in range(0, 12, 4)]
    truth = path_patch(
        model,
        pairs,
        senders,
        [f"{c}.{d}.{'qkv'[index]}"],
        None,
        between="nothing",
        backend="reference",
        precision="fp64",
    )
    return sweep_error(result.values[index, a, 0:12:4, c, d], truth.values)
