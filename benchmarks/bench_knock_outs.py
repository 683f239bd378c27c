"""Knock-out sets in the paper's circuit (J4) against a hooked TransformerLens 3.9 pass a set."""

from __future__ import annotations

import random
import statistics

import numpy
import pytest
import torch

from ioi_fast import GPT2, Circuit, PromptPairs, ablate, explain
from ioi_fast.benchmarks.jobs import CIRCUIT, gpt2_small, knock_out_sets, prompts
from ioi_fast.benchmarks.measure import Peer, check_peer, checked_error, facts, run_job
from ioi_fast.benchmarks.peer_process import PeerProcess, peer_process
from ioi_fast.reference.run import plain_run

SETS = 2000
ROUNDS = 3


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def bench_sets_in_a_circuit(benchmark, precision: str) -> None:
    model, pairs, sets = gpt2_small(), prompts(16, 16), knock_out_sets(SETS)
    asked, how = {"base": Circuit(CIRCUIT)}, {"backend": "cpu", "precision": precision}
    plan = explain(ablate, model, pairs, variants=sets, **asked)
    result = ablate(model, pairs, sets, **asked, **how)
    error = checked_error(ablate, model, pairs, result, sets, **asked)
    with peer_process(model, pairs) as worker:
        means = save_means(model, pairs, worker)
        drawn = random.Random(0)

        def one_set() -> dict:
            kept = {h: r for h, r in CIRCUIT.items() if h not in sets[drawn.randrange(SETS)]}
            return worker.ask("ablate", heads=places(kept, pairs), means=means)

        whole = torch.tensor(
            worker.ask("ablate", heads=places(CIRCUIT, pairs), means=means)["values"]
        )
        largest = float(result.values.abs().max())
        for index in (3, 1717):
            kept = {head: role for head, role in CIRCUIT.items() if head not in sets[index]}
            theirs = worker.ask("ablate", heads=places(kept, pairs), means=means)["values"]
            check_peer(result.values[index], torch.tensor(theirs) - whole, largest, precision)
        run_job(
            benchmark,
            f"J4: {SETS} knock-out sets in a 26-head circuit, N=16, T=16, {precision}",
            lambda: ablate(model, pairs, sets, **asked, **how),
            [
                Peer(
                    "one hooked TransformerLens 3.9 pass",
                    lambda: statistics.median(one_set()["seconds"] for _ in range(7)),
                    20,
                )
            ],
            units=SETS,
            unit="set",
            rounds=ROUNDS,
            flops=plan.flops,
            clean_flops=plan.clean_flops,
            facts=facts(result, error),
        )


def save_means(model: GPT2, pairs: PromptPairs, worker: PeerProcess) -> str:
    """Means of z over the new prompts as the peer's hooks want them: by layer, [N, T, H, K]."""
    new = plain_run(model, pairs.new, pairs.new_end)
    path = worker.folder / "means.npz"
    table = {
        str(layer): new.used["z", layer].mean(0).expand(len(pairs), -1, -1, -1).numpy()
        for layer in range(model.config.n_layer)
    }
    numpy.savez(path, **table)
    return str(path)


def places(heads: dict[str, str], pairs: PromptPairs) -> dict[str, list[int]]:
    """The token of every prompt at which each head lives."""
    return {head: pairs.positions[role].tolist() for head, role in heads.items()}
