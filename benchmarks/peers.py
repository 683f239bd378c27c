"""What others do for the same job, run the way they would run it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from checkpoints import as_transformers

from ioi_fast import GPT2, PromptPairs


def two_passes(model: GPT2, pairs: PromptPairs) -> Callable[[], None]:
    """Two plain forward passes of transformers: the least that a hook-based sweep pays a sender.

    No hook, no cache, no patch: the two passes of phases C and D and nothing else.
    """
    peer = as_transformers(model)
    peer.set_attn_implementation("sdpa")

    @torch.inference_mode()
    def run() -> None:
        for _ in range(2):
            peer(pairs.orig)

    return run
