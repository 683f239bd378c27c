"""Forked processes: what runs in them ends, whatever ran in the process that they come from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

BEGIN = """
import multiprocessing, os, pickle, signal, sys, threading, time, warnings
import torch
torch.set_num_threads(2)
import ioi_fast
from ioi_fast import ablate, attention, load, path_patch
from small_models import ragged_pairs, tiny_model

warnings.simplefilter("ignore")
# So wide that torch shares its rows out to its threads.
model, pairs = tiny_model(n_embd=96, n_head=4, n_inner=300), ragged_pairs(40, 15)

def call(**how):
    return path_patch(model, pairs, "heads", metric="kl", backend="cpu", **how).values

def in_child(work, seconds=60):
    "Whether work ended well in a forked process."
    child = os.fork()
    if child == 0:
        signal.alarm(seconds)  # a hang ends it
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0

def same(wanted, **how):
    assert torch.equal(call(**how), wanted)
"""


def run(code: str, seconds: int = 100) -> str:
    """What a process of its own prints."""
    found = subprocess.run(
        [sys.executable, "-P", "-c", BEGIN + code],
        capture_output=True,
        text=True,
        timeout=seconds,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent / "instruments")},
        check=False,
    )
    assert found.returncode == 0, found.stderr[-2000:]
    return found.stdout


@pytest.mark.slow
def test_a_child_of_a_process_whose_threads_were_used_runs_every_call_on_one() -> None:
    run("""
torch.ones(2**22).sqrt().sum()  # torch's threads, but none of our calls yet
assert in_child(lambda: call())
wanted, slow = call(), path_patch(model, pairs, ["0.1"], backend="reference").values

def everything():
    assert model.made.packed
    for how in ({}, {"threads": 1}, {"threads": 2}):
        same(wanted, **how)
    result = path_patch(model, pairs, ["0.1"], backend="reference")
    assert torch.allclose(result.values, slow) and result.provenance["threads"] == 1
    ablate(model, pairs, [{"0.1": "all"}], precision="bf16")
    attention(model, pairs, "heads")
    model(pairs.orig)
    model.weights.wte.mul_(1.01)
    call()
    demo = load("demo")
    path_patch(demo, ioi_fast.ioi_prompts(demo.tokenizer, n=20), precision="bf16")
    torch.ones(2**22).sqrt().sum()  # it stays on one
    assert in_child(lambda: call())

assert in_child(everything)
same(wanted)
assert torch.get_num_threads() == 2
""")


@pytest.mark.parametrize(
    "first", ["wide.folded()", "wide.to(dtype=torch.bfloat16)", "wide.check_finite()", "copy(wide)"]
)
def test_what_a_child_may_ask_of_a_model_first_does_not_wait(first: str) -> None:
    run(f"""
from copy import deepcopy as copy
from ioi_fast import GPT2, GPT2Config
wide = GPT2.random(GPT2Config(n_layer=1, n_head=8, n_embd=512, vocab_size=5000, n_positions=8))
torch.set_num_threads(2)
torch.ones(2**22).sqrt().sum()  # torch's threads
assert in_child(lambda: {first})
""")


def test_more_threads_are_refused_in_words_in_a_child() -> None:
    run("""
def warned():
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        result = path_patch(model, pairs, ["0.1"], threads=2)
    assert result.provenance["threads"] == 1
    assert any("this process was forked" in str(one.message) for one in said)

assert in_child(warned)
with warnings.catch_warnings():
    warnings.simplefilter("error")
    call(threads=2)
""")


@pytest.mark.slow
def test_forks_during_a_call_of_another_thread_and_in_a_call() -> None:
    run("""
wanted, stop = call(), threading.Event()

def calls():
    while not stop.is_set():
        call(threads=1)

thread = threading.Thread(target=calls)
thread.start()
ended = [in_child(lambda: same(wanted), 20) for _ in range(25)]
stop.set()
thread.join()
assert all(ended), ended

before = torch.get_float32_matmul_precision()
inside = []

def metric(logits, prompt):
    if not inside:
        inside.append(in_child(lambda: same(wanted)))
    return logits[:, 0]

torch.set_float32_matmul_precision("medium")
path_patch(model, pairs, ["0.1"], metric=metric)
assert inside == [True] and torch.get_float32_matmul_precision() == "medium"
""")


@pytest.mark.slow
def test_two_hundred_forks_during_calls_of_two_threads() -> None:
    run(
        """
wanted, stop = call(), threading.Event()

def calls(threads):
    while not stop.is_set():
        call(threads=threads)

threads = [threading.Thread(target=calls, args=[number]) for number in (1, 2)]
for thread in threads:
    thread.start()
ended = [in_child(lambda: same(wanted), 20) for _ in range(200)]
stop.set()
for thread in threads:
    thread.join()
assert all(ended), (ended.count(False), len(ended))
""",
        300,
    )


def test_a_child_has_the_settings_of_the_process_and_not_of_its_calls() -> None:
    run("""
torch.set_float32_matmul_precision("medium")
open_, done = threading.Event(), threading.Event()

def metric(logits, prompt):
    open_.set()
    done.wait(60)
    return logits[:, 0]

thread = threading.Thread(target=lambda: path_patch(model, pairs, ["0.1"], metric=metric))
thread.start()
open_.wait(60)
assert torch.get_float32_matmul_precision() == "highest"

def settings():
    assert torch.get_float32_matmul_precision() == "medium"
    call()
    assert torch.get_float32_matmul_precision() == "medium"

assert in_child(settings)
done.set()
thread.join()
assert torch.get_float32_matmul_precision() == "medium"
""")


def test_models_go_to_workers_of_either_kind() -> None:
    """Packed in the parent and inherited, and pickled, here in bf16."""
    run("""
wanted = call()
half = path_patch(model, pairs, precision="bf16").values

def worker(given, results):
    results.put(path_patch(given, pairs, precision="bf16").values.tolist())

context = multiprocessing.get_context("fork")
results = context.Queue()
workers = [context.Process(target=worker, args=[given, results], daemon=True)
           for given in (model, pickle.loads(pickle.dumps(model)))]
for one in workers:
    one.start()
for one in workers:
    assert torch.equal(torch.tensor(results.get(timeout=60)), half)
    one.join(30)

with context.Pool(2) as pool:
    again = pool.apply_async(path_patch, (model, pairs)).get(timeout=60)
    assert again.provenance["weight_hash"] == model.weight_hash()
""")
