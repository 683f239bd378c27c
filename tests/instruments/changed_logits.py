"""Calls of every kind, and how each variant changes the logits along random directions."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from small_models import ragged_pairs
from torch import Tensor

from ioi_fast import GPT2, Circuit, GPT2Config, ablate, activation_patch, pair_sweep, path_patch

VOCABULARY, DIRECTIONS = 60, 4
HEADS = ["0.0", "0.3", "1.1", "2.2"]
EACH = {"position": "each", "heads": HEADS}
IN_CIRCUIT = {"variants": [{head: "END"} for head in HEADS], "source": "zero"}
CALLS = {
    "logits": (path_patch, {}),
    "receivers": (path_patch, {"receivers": ["1.0.q", "2.1.v", "mlp2"], "position": "S2"}),
    "knock-outs": (path_patch, {"knock_out": {"1.0": "END", "mlp0": "S2"}}),
    **{
        f"patches of {site}": (activation_patch, {"site": site, **EACH}) for site in ("z", "k", "v")
    },
    **{
        f"patches of {site}": (activation_patch, {"site": site, "position": "each"})
        for site in ("resid_pre", "attn_out", "mlp_out")
    },
    "ablations": (ablate, {"variants": [{head: "all"} for head in HEADS]}),
    "a circuit": (ablate, {**IN_CIRCUIT, "base": Circuit(dict.fromkeys(HEADS, "END"))}),
    "pairs": (pair_sweep, {"inputs": ["q", "v"], "position": "END", "per_prompt": True}),
}


@functools.cache
def model() -> GPT2:
    shape = {"n_layer": 3, "n_head": 4, "n_embd": 128, "n_positions": 16}
    return GPT2.random(GPT2Config(**shape, vocab_size=VOCABULARY), seed=3)


def of_logits(call: Callable, asked: dict, **how: str) -> Tensor:
    """Each variant's change of the logits along random directions, [S, directions · N]."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(DIRECTIONS, VOCABULARY, generator=generator)

    def along(direction: Tensor) -> Tensor:
        def metric(logits: Tensor, prompt: Tensor) -> Tensor:
            return logits @ direction.to(logits.dtype)

        pairs = ragged_pairs(5, 8, vocab_size=VOCABULARY)
        return call(model(), pairs, **asked, metric=metric, **how).values.flatten(0, -2)

    return torch.cat([along(direction - direction.mean()) for direction in directions], -1)
