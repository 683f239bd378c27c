"""One plain forward pass in which any site can be overwritten: the definition of a run.

No cleverness: every token of every prompt goes through every layer. Precision is the weights'.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ioi_fast.kernels import reference
from ioi_fast.model import layers
from ioi_fast.model.gpt2 import GPT2

Site = tuple[str, int]  # ("z", 3): the z of layer 3


@dataclass(frozen=True, slots=True, eq=False)
class Overwrite:
    """Cells of a site and what they become; `where` broadcasts against `value`."""

    where: Tensor
    value: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """Every site of a run, before and after overwriting, and the logits at END.

    Sites: resid_pre, resid_mid, attn_out, mlp_in (what the MLP reads of resid_mid), mlp_out
    [N, T, D]; q, k, v, z [N, T, H, K]; pattern [N, H, T, S].
    """

    computed: dict[Site, Tensor]
    used: dict[Site, Tensor]
    logits: Tensor  # [N, V] at END


def plain_run(
    model: GPT2,
    tokens: Tensor,
    end: Tensor,
    overwrites: Mapping[Site, Sequence[Overwrite]] | None = None,
) -> Run:
    """Runs tokens [N, T]; each site is overwritten as soon as it is computed, in list order."""
    weights, config, overwrites = model.weights, model.config, overwrites or {}
    computed: dict[Site, Tensor] = {}
    used: dict[Site, Tensor] = {}

    def site(name: str, layer: int, value: Tensor) -> Tensor:
        computed[name, layer] = value
        for overwrite in overwrites.get((name, layer), ()):
            value = torch.where(overwrite.where, overwrite.value, value)
        used[name, layer] = value
        return value

    resid = layers.embedded(weights, tokens)
    for layer, block in enumerate(weights.blocks):
        resid_pre = site("resid_pre", layer, resid)
        q, k, v = layers.projections(resid_pre, block, config)
        q, k, v = site("q", layer, q), site("k", layer, k), site("v", layer, v)
        pattern = site("pattern", layer, layers.attention_pattern(q, k, layer, config))
        z = site("z", layer, reference.attention_mix(pattern, v))
        attn_out = site("attn_out", layer, z.flatten(-2) @ block.w_o + block.b_o)
        resid_mid = site("resid_mid", layer, resid_pre + attn_out)
        mlp_in = site("mlp_in", layer, resid_mid)
        resid = resid_mid + site("mlp_out", layer, layers.mlp(mlp_in, block, config))

    final = resid[torch.arange(len(tokens)), end]
    return Run(computed, used, layers.logits(final, weights, config))
