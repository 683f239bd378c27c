"""A process grows by no more than its plan says, and not by much less, on GPT-2 small's shapes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
MEGABYTE = 2**20
PROGRAM = """
import ctypes, json, sys
import torch
import ioi_fast
from ioi_fast import GPT2, Circuit, GPT2Config, PromptPairs, explain

def status(name):
    for line in open("/proc/self/status"):
        if line.startswith(name):
            return int(line.split()[1]) * 1024

def prompts(N, T, uneven=0, moved=0):
    generator = torch.Generator().manual_seed(0)
    orig = torch.randint(50257, (N, T), generator=generator)
    new = orig.clone()
    new[:, 2] = (new[:, 2] + 1) % 50257
    short = torch.arange(N) % 3 * uneven
    END, S2 = (T - 1 - short).tolist(), T - 6 - short
    in_new = {"END": END, "S2": (S2 + 1).tolist()} if moved else None
    positions = {"END": END, "S2": S2.tolist()}
    return PromptPairs(
        orig, new, orig[:, 1], orig[:, 2], positions=positions, new_positions=in_new
    )

name, layers, N, asked = json.loads(sys.argv[1])
if asked.get("base") == "circuit":
    asked["base"] = Circuit({f"{layer}.{3 * n}": "END" for layer in range(1, 12) for n in (0, 2)})
model, call = GPT2.random(GPT2Config(n_layer=layers), seed=0), getattr(ioi_fast, name)
pairs = prompts(N, 16, asked.pop("uneven", 0), asked.pop("moved", 0))
# A process's first call of a kind takes some MB once: code of libraries, their buffers.
call(model, pairs, **asked)
ctypes.CDLL("libc.so.6").malloc_trim(0)
open("/proc/self/clear_refs", "w").write("5")
before = status("RssAnon")
call(model, pairs, **asked)
# Without pages of files: the system takes those of libraries and they come back in a call.
grown = status("VmHWM") - status("RssFile") - status("RssShmem") - before
print(json.dumps([grown, explain(call, model, pairs, **asked).peak_bytes]))
"""
# What the C library's heap keeps for later is up to 5 MB, by chance: of so many processes the one
# counts that grew least.
PROCESSES = 3
EVERY_THIRD = [{f"{layer}.{head}": "all"} for layer in range(0, 12, 3) for head in range(6)]
IN_CIRCUIT = [{f"{layer}.{3 * n}": "END"} for layer in range(1, 12) for n in (0, 2)]
MOVERS = ["9.9.q", "9.6.q", "10.0.q"]
CALLS = {
    "logits": ("path_patch", 12, 64, {}),
    "logits, bf16": ("path_patch", 12, 64, {"precision": "bf16"}),
    "logits, budget": ("path_patch", 12, 128, {"max_memory": 100 * MEGABYTE}),
    "whole vocabulary": ("path_patch", 12, 32, {"metric": "kl"}),
    "queries": ("path_patch", 12, 64, {"receivers": MOVERS}),
    "values": ("path_patch", 12, 48, {"receivers": ["7.3.v", "8.6.v"], "position": "S2"}),
    "ablations": ("ablate", 12, 32, {"variants": EVERY_THIRD}),
    "ablations, budget": (
        "ablate",
        12,
        64,
        {"variants": EVERY_THIRD, "source": "new", "max_memory": 60 * MEGABYTE},
    ),
    "ablations in a circuit": ("ablate", 12, 48, {"variants": IN_CIRCUIT, "base": "circuit"}),
    "values, uneven": (
        "path_patch",
        12,
        48,
        {"receivers": ["7.3.v"], "position": "S2", "uneven": 2},
    ),
    "ablations, uneven": ("ablate", 12, 32, {"variants": EVERY_THIRD, "uneven": 2}),
    "patches of the residual": ("activation_patch", 12, 16, {"site": "resid_pre"}),
    "patches of z that moved, budget": (
        "activation_patch",
        12,
        64,
        {"site": "z", "position": "S2", "moved": 1, "max_memory": 80 * MEGABYTE},
    ),
    "knock-outs": ("path_patch", 12, 64, {"knock_out": {"9.3": "END", "mlp2": "S2"}}),
    "pairs of heads": ("pair_sweep", 3, 16, {}),
}


@pytest.mark.timeout(900)
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("kind", list(CALLS))
def test_a_call_grows_by_what_its_plan_says(kind: str) -> None:
    grown: list[int] = []
    for _ in range(PROCESSES):
        run = subprocess.run(
            [sys.executable, "-P", "-c", PROGRAM, json.dumps(CALLS[kind])],
            capture_output=True,
            text=True,
            timeout=280,
            check=True,
        )
        found, planned = json.loads(run.stdout)
        grown.append(found)
        if planned >= 0.97 * min(grown):
            break
    # Whatever else runs in the process can only add.
    share = planned / min(grown)
    said = f"plan {planned / MEGABYTE:.1f} MB, grown {[g / MEGABYTE for g in grown]}: {share:.3f}"
    print(f"{kind}: {said}")
    assert 0.95 <= share <= 1.4, said
