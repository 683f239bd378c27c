"""Prompts of unlike length that a tokenizer has padded to one width, on either side."""

from __future__ import annotations

import torch
from torch import Tensor

from ioi_fast import PromptPairs
from ioi_fast.asked.left_padding import GPT2_EOS


def texts(*shape: int, seed: int = 0) -> Tensor:
    """Tokens 5 to 54 in random order, 30 not among them."""
    drawn = torch.randint(5, 54, shape, generator=torch.Generator().manual_seed(seed))
    return drawn + (drawn >= 30).long()


def in_front(tokens: Tensor, *runs: int, padding: int = GPT2_EOS) -> Tensor:
    """Rows that begin with so many times the padding instead."""
    places = torch.arange(tokens.shape[1])
    return tokens.masked_fill(places < torch.tensor(runs)[:, None], padding)


def behind(tokens: Tensor, *runs: int, padding: int = GPT2_EOS) -> Tensor:
    """Rows that end with so many times the padding instead."""
    return in_front(tokens.flip(1), *runs, padding=padding).flip(1)


def pair(orig: Tensor, new: Tensor) -> PromptPairs:
    """Pairs that are read at the last column."""
    n, width = orig.shape
    return PromptPairs(orig, new, [5] * n, [6] * n, positions={"END": [width - 1] * n})
