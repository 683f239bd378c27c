"""A plan's bound against what the tensors of its call took at once, on shapes of many kinds.

The C++ kernels' workspace counts every tensor of 4 KiB and more. What a process grows by is in
test_memory.py.
"""

from __future__ import annotations

import functools

import pytest
import torch

from ioi_fast import (
    GPT2,
    Circuit,
    GPT2Config,
    PromptPairs,
    ablate,
    activation_patch,
    explain,
    pair_sweep,
    path_patch,
)
from ioi_fast.plan.memory.room import BESIDE

LAYERS, HEADS, VOCABULARY = 4, 8, 400

pytestmark = pytest.mark.usefixtures("counted")


@functools.cache
def model() -> GPT2:
    shape = {"n_layer": LAYERS, "n_head": HEADS, "n_embd": 256, "n_positions": 64}
    return GPT2.random(GPT2Config(**shape, vocab_size=VOCABULARY), seed=0)


def prompts(N: int, T: int, uneven: bool = False, moved: bool = False) -> PromptPairs:
    """Prompts of T tokens, or of T/2 to T; new ones differ in a fifth of the tokens, or where roles
    stand elsewhere, in all."""
    generator = torch.Generator().manual_seed(0)

    def tokens() -> torch.Tensor:
        return torch.randint(VOCABULARY, (N, T), generator=generator)

    orig, share = tokens(), 1.0 if moved else 0.2
    new = torch.where(torch.rand(N, T, generator=generator) < share, tokens(), orig)
    end = torch.full((N,), T - 1)
    if uneven:
        end[1:] -= torch.randint(T // 2, (N - 1,), generator=generator)
    elsewhere = {"new_positions": {"END": end, "S2": end - 3}} if moved else {}
    return PromptPairs(
        orig, new, orig[:, 0], orig[:, 1], positions={"END": end, "S2": end - 2}, **elsewhere
    )


def each_head(position: str) -> list[dict[str, str]]:
    return [{f"{layer}.{h}": position} for layer in range(LAYERS) for h in range(HEADS)]


WHOLE = Circuit({f"{layer}.{head}": "END" for layer in range(LAYERS) for head in range(HEADS)})
HALF = Circuit({f"{layer}.{head}": "S2" for layer in range(LAYERS) for head in range(0, HEADS, 2)})
KNOCKED = {"0.3": "S2", "mlp1": "S2"}
EVEN, UNEVEN, MOVED = {}, {"uneven": True}, {"moved": True}
CALLS = {
    "logits": (path_patch, EVEN, {}),
    "logits, uneven": (path_patch, UNEVEN, {"metric": "kl"}),
    "receivers at all positions": (
        path_patch,
        UNEVEN,
        {"receivers": ["1.3.q", "2.1.v", "mlp3"], "position": None},
    ),
    "receivers that moved": (
        path_patch,
        UNEVEN | MOVED,
        {"receivers": ["2.1.k", "mlp2"], "position": "S2"},
    ),
    "knock-outs": (path_patch, EVEN, {"knock_out": KNOCKED}),
    "knock-outs that moved": (path_patch, MOVED, {"knock_out": KNOCKED}),
    "knock-outs by new": (path_patch, EVEN, {"knock_out": KNOCKED, "knock_out_source": "new"}),
    "knock-outs before receivers": (
        path_patch,
        UNEVEN,
        {"knock_out": {"1.3": "S2"}, "receivers": ["2.1.k"], "position": "S2"},
    ),
    "patches of z": (activation_patch, EVEN, {"site": "z", "position": "S2"}),
    "patches of z that moved": (activation_patch, MOVED, {"site": "z", "position": "S2"}),
    "patches of k": (activation_patch, UNEVEN | MOVED, {"site": "k", "position": "END"}),
    "patches of the residual": (activation_patch, UNEVEN, {"site": "resid_mid", "position": "S2"}),
    "ablations": (ablate, UNEVEN, {"variants": each_head("all")}),
    "ablations of one late head": (ablate, EVEN, {"variants": [{"3.3": "all"}]}),
    "ablations by new": (
        ablate,
        MOVED,
        {"variants": [*each_head("S2"), *each_head("END")], "source": "new"},
    ),
    "a circuit of all heads": (ablate, UNEVEN, {"variants": each_head("END"), "base": WHOLE}),
    "a circuit of half": (ablate, UNEVEN, {"variants": each_head("S2")[::2], "base": HALF}),
    "a circuit by new": (
        ablate,
        EVEN,
        {"variants": each_head("END"), "base": WHOLE, "source": "new"},
    ),
    "pairs of heads": (pair_sweep, EVEN, {"inputs": ["v"]}),
}


def taken(kind: str, **more: object) -> tuple[int, int]:
    """Bytes that the tensors of a call took at once, and what its plan says of them."""
    call, how, asked = CALLS[kind]
    pairs = prompts(32, 32, **how)
    call(model(), prompts(4, 8, **how), **asked)  # packs the weights
    call(model(), pairs, **asked, **more)
    took = torch.ops.ioi_fast.workspace_peak()
    return took, explain(call, model(), pairs, **asked, **more).peak_bytes - BESIDE


@pytest.mark.parametrize("kind", list(CALLS))
def test_a_plan_counts_the_tensors_of_its_call(kind: str) -> None:
    took, planned = taken(kind)
    assert 1 <= planned / took <= 1.3, f"planned {planned / 2**20:.2f}, took {took / 2**20:.2f}"


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=[pytest.mark.slow] * (kind == "pairs of heads")) for kind in CALLS],
)
def test_a_budget_is_kept(kind: str) -> None:
    budget = BESIDE + taken(kind)[1] // 2
    took, planned = taken(kind, max_memory=budget)
    assert took <= planned <= budget - BESIDE
