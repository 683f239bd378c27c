"""The rows that a wave writes and recomputes in each layer, known before it begins.

They depend on the variants and on knock-outs alone. Made once, they leave nothing in a wave that
has to wait for a device: so it can be captured and replayed (ioi_fast/engine/wave_graphs.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ioi_fast.engine.both_runs import CellSites
from ioi_fast.engine.clean_run import tiles
from ioi_fast.plan.path_variants import PathVariant, tile_variants


@dataclass(frozen=True, slots=True, eq=False)
class WaveStep:
    """One layer for P variants that are ordered by first layer."""

    writes: tuple[Tensor, Tensor] | None  # rows and heads of what senders write
    recomputed: Sequence[tuple[slice, Tensor | None]]  # tiles, and rows of one or None for all
    frozen: Tensor | None  # cells whose MLP is knocked out
    patched: Sequence[int]  # rows that take the MLP of new
    active: int  # rows that differ before the MLP

    @classmethod
    def of(cls, layer: int, variants: Sequence[PathVariant], sites: CellSites) -> WaveStep:
        """The step of a layer."""
        writes = [
            (row, head.head)
            for row, variant in enumerate(variants)
            for head in variant.sender.heads
            if head.layer == layer
        ]
        rows_and_heads = None
        if writes:
            rows_and_heads = tuple(torch.tensor(column) for column in zip(*writes, strict=True))
        active = sum(variant.start <= (layer, 0) for variant in variants)
        frozen = sites.frozen_mlp.get(layer)
        return cls(
            rows_and_heads,
            _recomputed(layer, variants[:active], len(sites.resid_mid[layer])),
            None if frozen is None else frozen.nonzero().squeeze(1),
            [
                row
                for row, variant in enumerate(variants)
                if any(mlp.layer == layer for mlp in variant.sender.mlps)
            ],
            active,
        )


def _recomputed(
    layer: int, variants: Sequence[PathVariant], cells: int
) -> list[tuple[slice, Tensor | None]]:
    """Tiles of whole variants, which share the base rows, and which of their rows go through the
    layer's MLP: all, or those that are named."""
    found = []
    for tile in tiles(len(variants), tile_variants(cells)):
        chosen = [row for row, v in enumerate(variants[tile]) if v.recomputes(layer)]
        if len(chosen) == len(variants[tile]):
            found.append((tile, None))
        elif chosen:
            found.append((tile, torch.tensor(chosen)))
    return found
