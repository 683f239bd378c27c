"""From receivers to the answer: everything after them is recomputed, for all variants at once.

The receivers' values (what the first phase read, as differences) are put in place of their own; the
rest follows as a difference to the original run, on the tokens from the patched position to END.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ioi_fast.mlp import mlp_delta
from ioi_fast.model import GPT2
from ioi_fast.ops import Ops
from ioi_fast.packing import Packed
from ioi_fast.sites import Receiver
from ioi_fast.tail import LayerBase, Tail


@dataclass(frozen=True, slots=True, eq=False)
class SecondPhase:
    """Pass D for many variants: receivers overwritten, all that follows recomputed."""

    model: GPT2
    packed: Packed
    ops: Ops
    tail: Tail
    layers: dict[int, LayerBase]
    cells: Tensor  # [C] rows of the tail that are overwritten

    def run(self, received: dict[Receiver, Tensor], starts: list[int]) -> Tensor:
        """Change of the final residual at END, [P, N, D].

        received: change of each receiver, [P, C, K] or [P, C, D] at an MLP's input. starts: the
        first layer at which each variant reaches a receiver, in ascending order.
        """
        M, D = len(self.tail.in_orig), self.model.config.n_embd
        delta_PMD = torch.zeros(len(starts), M, D, dtype=torch.float32)
        last = self.model.config.n_layer - 1
        for layer in range(starts[0], last + 1):
            active = sum(start <= layer for start in starts)
            here = {r: value[:active] for r, value in received.items() if r.node.layer == layer}
            if layer == last:
                delta_PMD = self._layer(layer, delta_PMD[:active], here, starts, at_end=True)
            else:
                delta_PMD[:active] = self._layer(layer, delta_PMD[:active], here, starts)
        return delta_PMD

    def _layer(
        self,
        layer: int,
        delta: Tensor,
        received: dict[Receiver, Tensor],
        starts: list[int],
        at_end: bool = False,
    ) -> Tensor:
        """delta [P, M, D] through a layer; with at_end [P, N, D] at END comes back."""
        end_rows = self.tail.grid.end_rows
        begun = sum(start < layer for start in starts)
        delta_attn = self._attention(layer, delta, received, begun, at_end)
        delta_mid = delta[:, end_rows] if at_end else delta
        if delta_attn is not None:
            delta_mid = delta_mid + delta_attn
        base, mlp_in = self.layers[layer], delta_mid
        for receiver, value in received.items():
            if receiver.site == "mlp_in":
                mlp_in = self._overwritten(mlp_in, value, at_end)
        return delta_mid + mlp_delta(
            self.model, self.packed, self.ops, layer, base.resid_mid, base.pre, mlp_in.contiguous()
        )

    def _overwritten(self, delta: Tensor, value: Tensor, at_end: bool) -> Tensor:
        """delta with `value` [P, C, D] at the patched cells, of which only some may be END."""
        if not at_end:
            return delta.index_copy(1, self.cells, value)
        wide = delta.new_zeros(len(delta), len(self.tail.in_orig), delta.shape[-1])
        wide[:, self.tail.grid.end_rows] = delta
        return wide.index_copy_(1, self.cells, value)[:, self.tail.grid.end_rows]

    def _attention(
        self,
        layer: int,
        delta: Tensor,
        received: dict[Receiver, Tensor],
        begun: int,
        at_end: bool,
    ) -> Tensor | None:
        """Change of the attention's output, [P, M or N, D]; None where nothing changes it."""
        config, base, at = self.model.config, self.layers[layer], self.tail.at
        by_head = [receiver for receiver in received if receiver.site != "mlp_in"]
        # Before any variant has begun only the receivers' own heads change.
        heads = sorted({r.node.head for r in by_head}) if not begun else list(range(config.n_head))
        if not heads:
            return None
        dq, dk, dv = self._projections(layer, delta, begun, at_end, heads)
        for receiver in by_head:
            rows = {"q": dq, "k": dk, "v": dv}[receiver.site]
            column = heads.index(receiver.node.head)
            if receiver.site == "q" and at_end:
                value = received[receiver]
                rows[:, :, 0, column] = self._overwritten(rows[:, :, 0, column], value, True)
            else:
                self._put(rows, column, received[receiver])
        queries = self.tail.grid.end[:, None] if at_end else at.clamp(min=0)
        chosen = torch.tensor(heads)
        delta_z = self.ops.attention_delta(
            base.q[:, :, chosen],
            base.k[:, :, chosen],
            base.v[:, :, chosen],
            dq,
            dk,
            dv,
            config.attention_scale(layer),
            queries,
            at,
        )
        delta_z = delta_z.flatten(-2)
        rows = delta_z[:, :, 0] if at_end else self.tail.rows(delta_z)
        return self._write(layer, rows, chosen)

    def _projections(
        self, layer: int, delta: Tensor, begun: int, at_end: bool, heads: list[int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Changes of q, k and v by slot, [P, N, T' (q at END: 1), heads, K], before overwriting."""
        config, P = self.model.config, len(delta)
        N, width = self.tail.at.shape
        shape = (len(heads), config.d_head)
        dq = delta.new_zeros(P, N, 1 if at_end else width, *shape)
        dk, dv = (delta.new_zeros(P, N, width, *shape) for _ in range(2))
        if not begun:
            return dq, dk, dv
        block, D = self.model.weights.blocks[layer], config.n_embd
        normed = self.ops.layernorm_delta(
            self.layers[layer].resid_pre, delta[:begun], block.ln_1_gain, config.layer_norm_epsilon
        )
        if at_end:
            at_last = normed[:, self.tail.grid.end_rows].reshape(-1, D)
            q = self.packed.linear(layer, "q").delta(at_last)
            dq[:begun] = q.view(begun, N, 1, *shape)
            kv = self.packed.linear(layer, "kv").delta(normed.view(-1, D))
            k, v = self.tail.slots(kv.view(begun, -1, 2 * D)).chunk(2, -1)
        else:
            qkv = self.packed.linear(layer, "qkv").delta(normed.view(-1, D))
            q, k, v = self.tail.slots(qkv.view(begun, -1, 3 * D)).chunk(3, -1)
            dq[:begun] = q.unflatten(-1, shape)
        dk[:begun], dv[:begun] = k.unflatten(-1, shape), v.unflatten(-1, shape)
        return dq, dk, dv

    def _put(self, slots: Tensor, column: int, value: Tensor) -> None:
        """Writes `value` [P, C, K] of a head at the slots of the patched cells."""
        rows = self.tail.rows(slots[..., column, :])
        rows = rows.index_copy(1, self.cells, value)
        slots[..., column, :] = self.tail.slots(rows)

    def _write(self, layer: int, delta_z: Tensor, heads: Tensor) -> Tensor:
        """δz of some heads [P, R, heads·K] times their rows of W_O."""
        config = self.model.config
        if len(heads) == config.n_head:
            rows = delta_z.reshape(-1, config.n_embd)
            return self.packed.linear(layer, "o").delta(rows).view(*delta_z.shape[:-1], -1)
        w_o_HKD = self.model.weights.blocks[layer].w_o.view(config.n_head, config.d_head, -1)
        return delta_z @ w_o_HKD[heads].flatten(0, 1)
