"""The inputs of the benchmark jobs: GPT-2-small shapes, random weights, IOI-like prompts."""

from __future__ import annotations

import torch

from ioi_fast import GPT2, GPT2Config, PromptPairs

# Tokens of a prompt that differ between orig and new: the two names, and the second subject.
_NAMES = (2, 4, 10)


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
    roles = {"IO": end * 0 + _NAMES[0], "S1": end * 0 + _NAMES[1], "S2": end * 0 + _NAMES[2]}
    return PromptPairs(orig, new, orig[:, 2], orig[:, 4], positions={**roles, "END": end})
