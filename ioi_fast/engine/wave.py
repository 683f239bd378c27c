"""The wave: all senders of a path patch, carried as differences from the senders on.

A variant's rows join at its first sender's layer; attention is frozen, so nothing but MLPs and
LayerNorms is recomputed, at the patched cells alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ioi_fast.asked.receivers import Receiver
from ioi_fast.engine.both_runs import CellSites
from ioi_fast.engine.engine import Engine
from ioi_fast.engine.mlp import add_mlp_delta
from ioi_fast.engine.wave_rows import WaveStep
from ioi_fast.kernels.reference import Linear
from ioi_fast.kernels.torch_ops import rows_product
from ioi_fast.plan.path_variants import PathVariant, begun_before


def input_of_head(engine: Engine, layer: int, site: str, head: int) -> Linear:
    """The product that makes "q", "k" or "v" of a head from a layer's normalised input."""
    columns = engine.weights.blocks[layer].w_qkv.unflatten(1, (3, engine.config.n_head, -1))
    # Small: bf16 would save nothing.
    return engine.ops.exact.linear(columns[:, "qkv".index(site), head], None)


@dataclass(frozen=True, slots=True, eq=False)
class Wave:
    """The first phase for variants that are ordered by first layer; a value is [P, C, …]."""

    engine: Engine
    sites: CellSites
    variants: Sequence[PathVariant]
    between: str
    steps: Sequence[WaveStep]  # by layer

    @classmethod
    def of(
        cls,
        engine: Engine,
        sites: CellSites,
        variants: Sequence[PathVariant],
        between: str,
    ) -> Wave:
        """The wave of some variants over what both runs left at the cells."""
        layers = range(engine.config.n_layer)
        steps = [WaveStep.of(layer, variants, sites) for layer in layers]
        return cls(engine, sites, variants, between, steps)

    def layers(self, receivers: Sequence[Receiver] | None) -> range:
        """The layers that it walks to receivers, or to the logits."""
        if receivers is None:
            return range(self.variants[0].start[0], self.engine.config.n_layer)
        return range(max(receiver.node.layer for receiver in receivers) + 1)

    def to_logits(self, advance: Callable[[int], None]) -> Tensor:
        """Change of the final residual, [P, C, D]."""
        delta_PCD = self._start()
        for layer in self.layers(None):
            self._write_heads(layer, delta_PCD)
            self._write_mlps(layer, delta_PCD)
            advance(1)
        return delta_PCD

    def to_receivers(
        self, receivers: Sequence[Receiver], advance: Callable[[int], None]
    ) -> dict[Receiver, Tensor]:
        """Change of each receiver, [P, C, K], or [P, C, D] at the input of an MLP."""
        delta_PCD, received = self._start(), {}
        last = self.layers(receivers)[-1]
        for layer in self.layers(receivers):
            here = [receiver for receiver in receivers if receiver.node.layer == layer]
            received.update(self._read_heads(layer, here, delta_PCD))
            at_mlp = [receiver for receiver in here if not receiver.of_head]
            if layer < last or at_mlp:
                self._write_heads(layer, delta_PCD)
            received.update({receiver: delta_PCD.clone() for receiver in at_mlp})
            if layer < last:
                self._write_mlps(layer, delta_PCD)
            advance(1)
        return received

    def inputs_of_heads(self) -> Iterator[tuple[int, Tensor]]:
        """Every layer that a variant reaches, with the change of its normalised input [P, C, D].

        P are the variants that begin in an earlier layer.
        """
        delta_PCD, last = self._start(), self.engine.config.n_layer - 1
        for layer in range(last + 1):
            begun = begun_before(layer, self.variants)
            if begun:
                yield layer, self._normed(layer, delta_PCD[:begun])
            if layer < last:
                self._write_heads(layer, delta_PCD)
                self._write_mlps(layer, delta_PCD)

    def _start(self) -> Tensor:
        C, D = self.sites.resid_pre[0].shape
        return torch.zeros(len(self.variants), C, D, dtype=torch.float32)

    def _read_heads(
        self, layer: int, receivers: Sequence[Receiver], delta_PCD: Tensor
    ) -> dict[Receiver, Tensor]:
        """Change of the q, k and v of receivers: LayerNorm, then the head's own columns."""
        by_head = [receiver for receiver in receivers if receiver.of_head]
        if not by_head:
            return {}
        config = self.engine.config
        begun, (P, C, _) = begun_before(layer, self.variants), delta_PCD.shape
        received = {receiver: delta_PCD.new_zeros(P, C, config.d_head) for receiver in by_head}
        if not begun:
            return received
        normed = self._normed(layer, delta_PCD[:begun])
        for receiver, value_PCK in received.items():
            product = input_of_head(self.engine, layer, receiver.site, receiver.node.head)
            value_PCK[:begun] = rows_product(normed, product)
        return received

    def _normed(self, layer: int, delta_PCD: Tensor) -> Tensor:
        gain = self.engine.weights.blocks[layer].ln_1_gain
        epsilon = self.engine.config.layer_norm_epsilon
        resid_pre = self.sites.resid_pre[layer]
        return self.engine.ops.layernorm_delta(resid_pre, delta_PCD, gain, epsilon)

    def _write_heads(self, layer: int, delta_PCD: Tensor) -> None:
        """Adds what the senders among the layer's heads write: δz·W_O, once per head."""
        writes = self.steps[layer].writes
        if writes is None:
            return
        config = self.engine.config
        w_o = self.engine.weights.blocks[layer].w_o
        w_o_HKD = w_o.view(config.n_head, config.d_head, config.n_embd)
        rows, heads = writes
        self.engine.ops.head_write(delta_PCD, rows, self.sites.delta_z[layer], heads, w_o_HKD)

    def _write_mlps(self, layer: int, delta_PCD: Tensor) -> None:
        """Adds the layer's MLP: recomputed where it is not itself a sender of the group."""
        step = self.steps[layer]
        if self.between == "mlps":
            before = None if step.frozen is None else delta_PCD[: step.active, step.frozen]
            self._recompute(layer, delta_PCD)
            if step.frozen is not None:
                delta_PCD[: step.active, step.frozen] = before
        for row in step.patched:
            delta_PCD[row] += self.sites.delta_mlp[layer]

    def _recompute(self, layer: int, delta_PCD: Tensor) -> None:
        """Adds the change of the MLP, in tiles of whole variants that share the base rows."""
        for tile, chosen in self.steps[layer].recomputed:
            if chosen is None:
                self._add_mlp(layer, delta_PCD[tile])
            else:
                rows_PCD = delta_PCD[tile][chosen]
                self._add_mlp(layer, rows_PCD)
                delta_PCD[tile][chosen] = rows_PCD

    def _add_mlp(self, layer: int, delta_PCD: Tensor) -> None:
        resid_mid, pre = self.sites.resid_mid[layer], self.sites.pre[layer]
        add_mlp_delta(self.engine, layer, resid_mid, pre, delta_PCD)
