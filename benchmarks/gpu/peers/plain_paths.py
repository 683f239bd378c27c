"""J1 in plain torch: every head to the logits, attention frozen, MLPs recomputed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ioi_fast.benchmarks.gpu.peers.plain_gpt2 import Passed
from ioi_fast.benchmarks.gpu.peers.plain_sweep import Sweep, Values, chunks


@dataclass(frozen=True, slots=True, eq=False)
class Together:
    """Senders that go together, ascending, and which of them stand in each layer."""

    senders: Tensor
    by_layer: list[slice]


class PathSweep(Sweep):
    """A piece is a sender at END; every token and layer is computed for each."""

    @property
    def pieces(self) -> int:
        return self.plain.config.n_layer * self.plain.config.n_head

    def sampled(self) -> list[int]:
        places = [map(int, name.split(".")) for name in self.job.sample]
        return sorted(layer * self.plain.config.n_head + head for layer, head in places)

    def prepared(self, pieces: Sequence[int], together: int) -> Values:
        parts = [self._chunk(some) for some in chunks(sorted(pieces), together)]
        both, N = torch.cat([self.orig, self.new]), len(self.orig)

        def run() -> Tensor:
            passed = self.plain.clean(both)
            orig, writes = [layer.of(slice(N)) for layer in passed], self._writes(passed)
            base = self.plain.read(orig[-1].out[:, -1], self.towards_ND)
            values = base.new_zeros(self.pieces, N)
            for part in parts:
                final = self.final(part, orig, writes[part.senders])
                values[part.senders] = self.plain.read(final, self.towards_ND) - base
            return values

        return run

    def _chunk(self, senders: Sequence[int]) -> Together:
        H, slices, begin = self.plain.config.n_head, [], 0
        for layer in range(self.plain.config.n_layer):
            end = begin + sum(sender // H == layer for sender in senders)
            slices.append(slice(begin, end))
            begin = end
        return Together(self.index(senders), slices)

    def _writes(self, passed: list[Passed]) -> Tensor:
        """What each head's new z changes in the residual at END, [L·H, N, D]."""
        N, K, found = len(self.orig), self.plain.config.d_head, []
        for layer, one in zip(self.plain.layers, passed, strict=True):
            moved_NHK = one.z[N:, -1] - one.z[:N, -1]
            w_o = layer.w_o.view(-1, K, layer.w_o.shape[-1])
            found.append(torch.einsum("nhk,hkd->hnd", moved_NHK, w_o))
        return torch.cat(found).to(self.plain.wte.dtype)

    def final(self, part: Together, orig: list[Passed], writes_PND: Tensor) -> Tensor:
        """The last residual at END, [P, N, D]."""
        x_PNTD = self.plain.embedded(self.orig).expand(len(writes_PND), -1, -1, -1)
        for n, layer in enumerate(orig):
            x_PNTD = x_PNTD + layer.attn_out
            own = part.by_layer[n]
            x_PNTD[own, :, -1] += writes_PND[own]
            x_PNTD = self.plain.mlp(n, x_PNTD)
        return x_PNTD[:, :, -1]


class PathCone(PathSweep):
    """At END alone, from a sender's own layer on."""

    @property
    def tokens(self) -> int:
        return 1

    def final(self, part: Together, orig: list[Passed], writes_PND: Tensor) -> Tensor:
        x_PND = writes_PND[:0]
        for n, layer in enumerate(orig):
            x_PND, own = x_PND + layer.attn_out[:, -1], part.by_layer[n]
            if own.stop > own.start:
                x_PND = torch.cat([x_PND, layer.mid[:, -1] + writes_PND[own]])
            if own.stop:
                x_PND = self.plain.mlp(n, x_PND)
        return x_PND
