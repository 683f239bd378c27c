"""Path patching of all heads (J1 to the logits, J2 to queries, J3 to values) against two passes of
TransformerLens 3.9 a sender, and against leaner ones of transformers."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import ExitStack

import pytest
import torch

from ioi_fast import PromptPairs, Result, explain, path_patch
from ioi_fast.benchmarks.jobs import PATH_JOBS, gpt2_small, prompts
from ioi_fast.benchmarks.measure import Peer, check_peer, checked_error, facts, run_job, timed
from ioi_fast.benchmarks.peer_process import PeerProcess, peer_process
from ioi_fast.benchmarks.peers import passes

LONG = ("J1 at N=100",)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] * (name in LONG)) for name in PATH_JOBS]
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def bench_all_heads(benchmark, name: str, precision: str) -> None:
    receivers, position, where, N, marks = PATH_JOBS[name]
    mark, model, pairs = marks[precision], gpt2_small(), prompts(N, 16)
    asked = {"receivers": receivers, "position": position}
    plan = explain(path_patch, model, pairs, **asked)
    result = path_patch(model, pairs, **asked, backend="cpu", precision=precision)
    senders = [str(sender) for sender in result.senders]
    error = checked_error(path_patch, model, pairs, result, senders, **asked)
    reach = len(plan.variants)
    with ExitStack() as opened:
        worker = opened.enter_context(peer_process(model, pairs))
        check_against(worker, result, asked, pairs, precision)
        two, one = passes(model, pairs, 2), passes(model, pairs, 1)
        peers = [
            Peer("two TransformerLens 3.9 passes", lambda: worker.seconds(2), mark),
            Peer("two transformers passes", timed(two)),
            Peer("one transformers pass", timed(one)),
        ]
        if receivers == "logits":
            traced = opened.enter_context(peer_process(model, pairs, "nnsight"))
            peers.append(Peer("one traced nnsight 0.8 pass", by_traces(traced, result, precision)))
        run_job(
            benchmark,
            f"{name}: {reach} heads to {where}, N={N}, T=16, {precision}",
            lambda: path_patch(model, pairs, **asked, backend="cpu", precision=precision),
            peers,
            units=reach,
            unit="sender",
            rounds=9 if N <= 16 else 3,
            flops=plan.flops,
            clean_flops=plan.clean_flops,
            facts=facts(result, error),
        )


def by_traces(worker: PeerProcess, result: Result, precision: str) -> Callable[[], float]:
    """Seconds of one sender by nnsight, which is first shown to give the same values."""
    largest = float(result.values.abs().max())

    def ask(sender: str) -> dict:
        return worker.ask("path_patch", sender=[int(part) for part in sender.split(".")])

    for index in (17, 100):
        theirs = torch.tensor(ask(result.senders[index])["values"])
        check_peer(result.values[index], theirs, largest, precision)
    return lambda: ask(result.senders[50])["seconds"]


def check_against(
    worker: PeerProcess, result: Result, asked: dict, pairs: PromptPairs, precision: str
) -> None:
    """Two senders by hooks in TransformerLens give the same values."""
    receivers = asked["receivers"]
    at = pairs.positions[asked["position"]].tolist()
    listed = []
    for receiver in () if receivers == "logits" else receivers:
        layer, head, site = receiver.split(".")
        listed.append((int(layer), int(head), site))
    largest = float(result.values.abs().max())
    for index in random.Random(1).sample(range(7 * 12), 2):
        sender = [int(part) for part in result.senders[index].split(".")]
        theirs = worker.ask("path_patch", sender=sender, receivers=listed, at=at)["values"]
        check_peer(result.values[index], torch.tensor(theirs), largest, precision)
