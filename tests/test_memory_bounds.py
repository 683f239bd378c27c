"""A call never grows a process by more than its plan or its budget says: whatever the activation,
metric, precision, vocabulary, threads, and with or without compiled kernels.

Resident memory of a child process, by Linux's own counters. test_memory.py says how near a plan is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc"
)
MEGABYTE = 2**20
ALLOWED = 1.05
PROGRAM = """
import ctypes, json, sys, warnings
warnings.simplefilter("ignore")
import torch
import ioi_fast
from ioi_fast import GPT2, GPT2Config, PromptPairs, explain

def status(name):
    for line in open("/proc/self/status"):
        if line.startswith(name):
            return int(line.split()[1]) * 1024

def prompts(N, T=12):
    tokens = torch.randint(V, (N, T), generator=torch.Generator().manual_seed(0))
    new = tokens.clone()
    new[:, 2] = (new[:, 2] + 1) % V
    at = {"END": [T - 1] * N, "S2": [T - 4] * N}
    return PromptPairs(tokens, new, tokens[:, 1], tokens[:, 2], positions=at)

def grown(call, pairs, asked):
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    open("/proc/self/clear_refs", "w").write("5")
    before = status("VmRSS")
    call(model, pairs, **asked)
    return status("VmHWM") - before

for name, shape, N, asked, share in json.loads(sys.argv[1]):
    V, call = shape["vocab_size"], getattr(ioi_fast, name)
    model = GPT2.random(GPT2Config(n_positions=32, **shape), seed=0)
    # Packs the weights, on the threads that the process has.
    call(model, prompts(2), **{k: v for k, v in asked.items() if k != "threads"})
    plan = explain(call, model, prompts(N), **asked).peak_bytes
    if share:
        asked["max_memory"] = int(plan * share)
        try:
            plan = explain(call, model, prompts(N), **asked).peak_bytes
        except ValueError as error:
            asked["max_memory"] = plan = int(str(error).split("at least ")[1].split()[0])
    print(json.dumps([grown(call, prompts(N), asked), plan, asked.get("max_memory", plan)]))
    model.refresh()
"""
SMALL = {"n_layer": 3, "n_head": 12, "n_embd": 768}
TINY = {"n_layer": 1, "n_head": 8, "n_embd": 8}
NARROW = {"n_layer": 2, "n_head": 4, "n_embd": 128}
TABLES = pytest.mark.parametrize(
    "kernels",
    ["c++", pytest.param("torch", marks=pytest.mark.slow)],  # half a minute a call
)


def case(
    activation: str,
    call: str,
    N: int,
    share: float,
    vocabulary: int = 400,
    shape: dict | None = None,
    **asked,
) -> list:
    shape = shape or (NARROW if vocabulary > 1000 else SMALL)
    config = {**shape, "vocab_size": vocabulary, "activation_function": activation}
    if call == "ablate":
        L, H = shape["n_layer"], shape["n_head"]
        asked["variants"] = [{f"{layer}.{head}": "all"} for layer in range(L) for head in range(H)]
    return [call, config, N, asked, share]


def check(cases: list[list], kernels: str) -> None:
    """Raises AssertionError unless each call, in its own process, keeps its plan and budget."""
    compiler = {} if kernels == "c++" else {"CXX": "none"}
    for one in cases:
        run = subprocess.run(
            [sys.executable, "-P", "-c", PROGRAM, json.dumps([one])],
            env={**os.environ, **compiler},
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert run.returncode == 0, run.stderr[-3000:]
        grown, plan, budget = json.loads(run.stdout)
        said = f"grown {grown / MEGABYTE:.1f} MiB, plan {plan / MEGABYTE:.1f}, " + (
            f"budget {budget / MEGABYTE:.1f}: {kernels}, {one}"
        )
        print(said)
        assert plan <= budget and grown <= ALLOWED * plan, said


@TABLES
@pytest.mark.parametrize("activation", ["gelu", pytest.param("relu", marks=pytest.mark.slow)])
def test_activations_other_than_gpt2s_own(activation: str, kernels: str) -> None:
    """An MLP that runs in one piece would hold its hidden layer of all variants."""
    check([case(activation, "path_patch", 64, 0.6)], kernels)


@pytest.mark.slow
def test_bf16_without_a_budget() -> None:
    check([case("gelu", "path_patch", 96, 0, precision="bf16")], "c++")


def test_the_rank_among_many_tokens() -> None:
    """Counting takes whole numbers of eight bytes for each logit."""
    check([case("gelu_new", "path_patch", 8, 0, 250_000, metric="rank")], "c++")


@pytest.mark.slow
@pytest.mark.parametrize("call", ["path_patch", "ablate"])
def test_many_prompts_of_a_small_model(call: str) -> None:
    """What a call holds of each prompt grows with them, whatever the blocks."""
    check([case("gelu_new", call, 10_000, 0.9, shape=TINY)], "c++")


@TABLES
def test_a_first_call_on_many_threads(kernels: str) -> None:
    """Each new thread brings a stack, a heap and a block of rows."""
    check([case("relu", "path_patch", 48, 0, threads=32)], kernels)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kernels", ["c++", "torch"])
def test_of_calls_drawn_at_random(kernels: str) -> None:
    random, cases = Random(0), []
    for _ in range(4):
        metric = random.choice(["logit_diff", "prob", "rank", "accuracy", "kl"])
        asked = {
            "metric": metric,
            "precision": random.choice(["fp32", "bf16"]),
            "threads": random.choice([1, 2, 8, 32]),
        }
        vocabulary = random.choice([50_000, 250_000]) if metric in ("prob", "rank", "kl") else 400
        call, N = random.choice([("path_patch", 32), ("path_patch", 16), ("ablate", 12)])
        activation = random.choice(["gelu_new", "gelu_pytorch_tanh", "gelu", "relu"])
        share = random.choice([0, 0.5, 0.7])
        N = min(N, 8) if vocabulary > 400 else N
        cases.append(case(activation, call, N, share, vocabulary, **asked))
    check(cases, kernels)
