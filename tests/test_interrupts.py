"""Stopping a long call: it ends soon, and the process goes on as before."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest
import torch

from ioi_fast import GPT2, GPT2Config, PromptPairs, ablate, pair_sweep, path_patch

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends a POSIX signal to itself")
CONFIG = GPT2Config(n_layer=8, n_head=8, n_embd=512, vocab_size=100, n_positions=32)


def prompts(N: int) -> PromptPairs:
    generator = torch.Generator().manual_seed(0)
    orig, new = (torch.randint(100, (N, 24), generator=generator) for _ in range(2))
    return PromptPairs(orig, new, orig[:, 0], orig[:, 1], positions={"END": [23] * N})


def long_calls() -> dict:
    """Calls of many seconds each."""
    model = GPT2.random(CONFIG, seed=0)
    heads = [f"{layer}.{head}" for layer in range(8) for head in range(8)]
    sets = [{a: "all", b: "END"} for a in heads for b in heads if a != b]
    return {
        "path_patch": lambda: path_patch(model, prompts(600), "heads", ["7.0.q"], None),
        "ablate": lambda: ablate(model, prompts(16), sets),
        "pair_sweep": lambda: pair_sweep(model, prompts(8)),
        "reference": lambda: ablate(model, prompts(16), sets, backend="reference"),
    }


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A process that a shell started in the background ignores the signal; this one does not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["path_patch", "ablate", "pair_sweep", "reference"])
def test_interrupt_ends_a_long_call_within_two_seconds(name: str) -> None:
    call = long_calls()[name]
    model, few = GPT2.random(CONFIG, seed=1), prompts(2)
    before, threads = path_patch(model, few, ["0.1", "3.2"]), torch.get_num_threads()
    sent = []

    def interrupt() -> None:
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(0.7, interrupt)
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            call()
        waited = time.monotonic() - sent[0]
    finally:
        timer.cancel()
    assert waited < 2
    assert torch.get_num_threads() == threads
    assert torch.equal(path_patch(model, few, ["0.1", "3.2"]).values, before.values)
