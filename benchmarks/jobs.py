"""The inputs of the benchmark jobs: GPT-2-small shapes, random weights, IOI-like prompts."""

from __future__ import annotations

import random

import torch

from ioi_fast import GPT2, GPT2Config, PromptPairs

# Tokens of a prompt that differ between orig and new: the two names, and the second subject.
_NAMES = (2, 4, 10)
# The 26 heads of the paper's circuit (section 5) at their roles.
CIRCUIT = {
    **dict.fromkeys(["9.9", "9.6", "10.0", "10.7", "11.10"], "END"),
    **dict.fromkeys(["7.3", "7.9", "8.6", "8.10"], "END"),
    **dict.fromkeys(["9.0", "9.7", "10.1", "10.2", "10.6", "10.10", "11.2", "11.9"], "END"),
    **dict.fromkeys(["5.5", "5.8", "5.9", "6.9", "0.1", "0.10", "3.0"], "S2"),
    **dict.fromkeys(["2.2", "4.11"], "S1+1"),
}


# Path patching of all heads.
MOVERS = ["9.9.q", "9.6.q", "10.0.q"]
INHIBITORS = ["7.3.v", "7.9.v", "8.6.v", "8.10.v"]
# Receivers, position, what they are, prompts, and the mark of each precision.
PATH_JOBS = {
    "J1": ("logits", "END", "the logits", 16, {"fp32": 145, "bf16": 200}),
    "J1 at N=100": ("logits", "END", "the logits", 100, {"fp32": 145, "bf16": 200}),
    "J2": (MOVERS, "END", "the queries of three heads", 16, {"fp32": None, "bf16": 120}),
    "J3": (INHIBITORS, "S2", "the values of four heads at S2", 16, {"fp32": None, "bf16": 50}),
}
Cell = tuple[int, int, int, int, int]  # input, sender layer and head, receiver layer and head


def gpt2_small() -> GPT2:
    """GPT-2 small's shapes with random weights."""
    return GPT2.random(GPT2Config(), seed=0)


def prompts(N: int, T: int, vocab_size: int = 50257, seed: int = 0) -> PromptPairs:
    """N prompts of T random tokens in which the new prompt differs at three tokens."""
    generator = torch.Generator().manual_seed(seed)
    orig = torch.randint(vocab_size, (N, T), generator=generator)
    new = orig.clone()
    new[:, _NAMES] = torch.randint(vocab_size, (N, len(_NAMES)), generator=generator)
    end = torch.full((N,), T - 1)
    at = {"IO": _NAMES[0], "S1": _NAMES[1], "S1+1": _NAMES[1] + 1, "S2": _NAMES[2]}
    roles = {role: end * 0 + token for role, token in at.items()}
    return PromptPairs(orig, new, orig[:, 2], orig[:, 4], positions={**roles, "END": end})


def knock_out_sets(count: int) -> list[dict[str, str]]:
    """Different sets of the circuit's heads, each head with probability one half, seed 0."""
    generator, sets = random.Random(0), {}
    while len(sets) < count:
        chosen = {head: role for head, role in CIRCUIT.items() if generator.random() < 0.5}
        sets[frozenset(chosen)] = chosen
    return list(sets.values())


def cells(L: int, H: int, count: int) -> list[Cell]:
    """Pairs drawn uniformly, seed 0."""
    places = [(layer, head) for layer in range(L) for head in range(H)]
    every = [(i, *s, *r) for i in range(3) for s in places for r in places if s[0] < r[0]]
    return random.Random(0).sample(every, count)
