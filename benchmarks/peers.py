"""What others do for the same job, run the way they would run it."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ioi_fast import GPT2, PromptPairs
from ioi_fast.benchmarks.transformers_model import as_transformers


def passes(model: GPT2, pairs: PromptPairs, count: int) -> Callable[[], None]:
    """Plain forward passes of transformers: two are the least that a hook-based sweep pays a
    sender, one is what is left when the first phase is shared or not needed.

    No hook, no cache, no patch.
    """
    peer = as_transformers(model)
    peer.set_attn_implementation("sdpa")

    @torch.inference_mode()
    def run() -> None:
        for _ in range(count):
            peer(pairs.orig)

    run()
    return run
