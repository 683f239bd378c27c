"""The wave: all senders of a path patch to the logits, carried as differences through the layers.

A variant's rows join at its first sender's layer; attention is frozen, so nothing but MLPs and
LayerNorms is recomputed, at END alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ioi_fast.base import tiles
from ioi_fast.model import GPT2
from ioi_fast.new_run import EndSites, mlp_delta
from ioi_fast.ops import Ops
from ioi_fast.packing import Packed
from ioi_fast.plan import Variant, tile_variants


def run_wave(
    model: GPT2,
    packed: Packed,
    ops: Ops,
    sites: EndSites,
    variants: Sequence[Variant],
    between: str,
    advance: Callable[[int], None],
) -> Tensor:
    """Change of the final residual at END, [P, N, D]; variants are ordered by first layer."""
    N, D = sites.final.shape
    delta_PND = torch.zeros(len(variants), N, D)
    for layer in range(variants[0].start[0], model.config.n_layer):
        _write_heads(model, ops, sites, variants, layer, delta_PND)
        if between == "mlps":
            active = sum(variant.start <= (layer, 0) for variant in variants)
            recomputed = [variant.recomputes(layer) for variant in variants[:active]]
            _through_mlp(model, packed, ops, sites, layer, delta_PND[:active], recomputed)
        for row, variant in enumerate(variants):
            if any(mlp.layer == layer for mlp in variant.sender.mlps):
                delta_PND[row] += sites.delta_mlp[layer]
        advance(1)
    return delta_PND


def _write_heads(
    model: GPT2,
    ops: Ops,
    sites: EndSites,
    variants: Sequence[Variant],
    layer: int,
    delta_PND: Tensor,
) -> None:
    """Adds what the senders among the layer's heads write: δz·W_O, once per head."""
    writes = [
        (row, head.head)
        for row, variant in enumerate(variants)
        for head in variant.sender.heads
        if head.layer == layer
    ]
    if not writes:
        return
    rows, senders = (torch.tensor(column) for column in zip(*writes, strict=True))
    heads, which = senders.unique(return_inverse=True)
    config = model.config
    w_o_HKD = model.weights.blocks[layer].w_o.view(config.n_head, config.d_head, config.n_embd)
    written_NHD = ops.head_write(sites.delta_z[layer][:, heads], w_o_HKD[heads])
    delta_PND.index_add_(0, rows, written_NHD.transpose(0, 1)[which])


def _through_mlp(
    model: GPT2,
    packed: Packed,
    ops: Ops,
    sites: EndSites,
    layer: int,
    delta_PND: Tensor,
    recomputed: Sequence[bool],
) -> None:
    """Adds the change of the layer's MLP, in tiles of whole variants that share the base rows."""
    resid_mid, pre = sites.resid_mid[layer], sites.pre[layer]
    for tile in tiles(len(delta_PND), tile_variants(delta_PND.shape[1])):
        tile_PND, chosen_P = delta_PND[tile], torch.tensor(recomputed[tile])
        if chosen_P.all():
            tile_PND += mlp_delta(model, packed, ops, layer, resid_mid, pre, tile_PND)
        elif chosen_P.any():
            rows_PND = tile_PND[chosen_P]
            rows_PND += mlp_delta(model, packed, ops, layer, resid_mid, pre, rows_PND)
            tile_PND[chosen_P] = rows_PND
