"""max_memory holds for what the process really takes, on GPT-2 small's shapes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
MEGABYTE = 2**20
PROGRAM = """
import ctypes, sys
import torch
from ioi_fast import GPT2, Circuit, GPT2Config, PromptPairs, ablate, path_patch

def status(name):
    for line in open("/proc/self/status"):
        if line.startswith(name):
            return int(line.split()[1]) * 1024

def prompts(N, T):
    generator = torch.Generator().manual_seed(0)
    orig = torch.randint(50257, (N, T), generator=generator)
    new = orig.clone()
    new[:, 2] = (new[:, 2] + 1) % 50257
    return PromptPairs(orig, new, orig[:, 1], orig[:, 2], positions={"END": [T - 1] * N})

model, budget = GPT2.random(GPT2Config(), seed=0), int(sys.argv[2])
variants = [{f"{layer}.0": "all"} for layer in range(0, 12, 3)]
calls = {
    "path_patch": lambda pairs, **more: path_patch(model, pairs, backend="cpu", **more),
    "ablate": lambda pairs, **more: ablate(model, pairs, variants, backend="cpu", **more),
}
call = calls[sys.argv[1]]
call(prompts(2, 8))  # packs the weights, which is not counted
pairs = prompts(64, 16)
ctypes.CDLL("libc.so.6").malloc_trim(0)
open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS")
call(pairs, max_memory=budget)
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(("call", "megabytes"), [("path_patch", 100), ("ablate", 100)])
def test_a_call_stays_within_its_budget(call: str, megabytes: int) -> None:
    budget = megabytes * MEGABYTE
    run = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM, call, str(budget)],
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    grown = int(run.stdout)
    assert budget / 4 < grown <= budget, f"{grown / MEGABYTE:.0f} MB of {megabytes}"
