"""J5 in plain torch: a direct path from every head to q, k and v of every later one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor

from ioi_fast.benchmarks.gpu.jobs.job import Job
from ioi_fast.benchmarks.gpu.peers.plain_gpt2 import (
    Layer,
    Passed,
    PlainGPT2,
    attend,
    behind,
    normed,
    split_heads,
    write,
)
from ioi_fast.benchmarks.gpu.peers.plain_sweep import Sweep, Values, chunks


class PairSweep(Sweep):
    """A piece is a receiver's layer and a sender, for all its heads and their three inputs; every
    token and layer is computed for each variant."""

    def __init__(self, plain: PlainGPT2, job: Job) -> None:
        super().__init__(plain, job)
        L, H = plain.config.n_layer, plain.config.n_head
        self.places = [(layer, sender) for layer in range(1, L) for sender in range(layer * H)]
        self.each = 3 * H
        differs = (job.pairs.orig != job.pairs.new).any(0).tolist()
        self.first = differs.index(True) if True in differs else len(differs) - 1

    @property
    def pieces(self) -> int:
        return len(self.places)

    def sampled(self) -> list[int]:
        H = self.plain.config.n_head
        found = {(c, a * H + b) for _, a, b, c, _ in self.job.sample}
        return sorted(self.places.index(place) for place in found)

    def prepared(self, pieces: Sequence[int], together: int) -> Values:
        L, H, parts = self.plain.config.n_layer, self.plain.config.n_head, []
        for layer, group in groupby(sorted(pieces), key=lambda piece: self.places[piece][0]):
            for some in chunks(list(group), together):
                senders = [self.places[piece][1] for piece in some]
                a, b = zip(*(divmod(sender, H) for sender in senders), strict=True)
                parts.append((layer, *map(self.index, (senders, a, b))))
        both = torch.cat([self.orig, self.new])

        def run() -> Tensor:
            passed, N = self.plain.clean(both), len(self.orig)
            orig, writes = [layer.of(slice(N)) for layer in passed], self._writes(passed)
            base = self.plain.read(orig[-1].out[:, -1], self.towards_ND)
            values = base.new_zeros(3, L, H, L, H, N)
            for layer, senders, a, b in parts:
                final = self.final(layer, orig, writes[senders])
                found = self.plain.read(final, self.towards_ND) - base
                values[:, a, b, layer] = found.permute(2, 1, 0, 3)
            return values

        return run

    def _writes(self, passed: list[Passed]) -> Tensor:
        """What each head's new z changes in the residual, [L·H, N, T, D]."""
        N, K, found = len(self.orig), self.plain.config.d_head, []
        for layer, one in zip(self.plain.layers, passed, strict=True):
            moved = one.z[N:] - one.z[:N]
            w_o = layer.w_o.view(-1, K, layer.w_o.shape[-1])
            found.append(torch.einsum("nthk,hkd->hntd", moved, w_o))
        return torch.cat(found).to(self.plain.wte.dtype)

    def received(self, layer: int, orig: list[Passed], writes_SNTD: Tensor) -> tuple[Tensor, ...]:
        """q, k and v of a layer's heads when one sender's write reaches them, [S·N, H, T, K]."""
        x = orig[layer - 1].out[:, -writes_SNTD.shape[2] :] + writes_SNTD
        config = self.plain.config
        return split_heads(x.flatten(0, 1), self.plain.layers[layer], self.plain.epsilon,
                           config.d_head)  # fmt: skip

    def final(self, receiver: int, orig: list[Passed], writes_SNTD: Tensor) -> Tensor:
        """The last residual at END of variants by head, sender and input, [H, S, 3, N, D]."""
        plain, config, (N, T) = self.plain, self.plain.config, self.orig.shape
        S, H = len(writes_SNTD), config.n_head
        x = plain.embedded(self.orig).expand(H * S * 3, -1, -1, -1).flatten(0, 1)
        for n, layer in enumerate(plain.layers):
            qkv = split_heads(x, layer, plain.epsilon, config.d_head)
            if n == receiver:
                new = self.received(n, orig, writes_SNTD)
                for site, (whole, own) in enumerate(zip(qkv, new, strict=True)):
                    # [variant's head, S, site, N, a head, T, K]: what stands on both diagonals.
                    view = whole.unflatten(0, (H, S, 3, N))[:, :, site].diagonal(0, 0, 3)
                    view.copy_(own.unflatten(0, (S, N)).movedim(2, -1))
            z = attend(*qkv, config.attention_scale(n)).transpose(1, 2)
            x = plain.mlp(n, x + write(z, layer))
        return x.view(H, S, 3, N, T, -1)[..., -1, :]


class PairCone(PairSweep):
    """From the receiver's layer on, behind the first token that any new prompt changes; in the last
    layer END alone."""

    def __init__(self, plain: PlainGPT2, job: Job) -> None:
        super().__init__(plain, job)
        tokens = self.index(range(self.orig.shape[1]))
        self.sees_TS = tokens[self.first :, None] >= tokens

    @property
    def tokens(self) -> int:
        return self.orig.shape[1] - self.first

    def final(self, receiver: int, orig: list[Passed], writes_SNTD: Tensor) -> Tensor:
        plain, last = self.plain, len(self.plain.layers) - 1
        moved = self._first_write(receiver, orig, writes_SNTD[:, :, self.first :])
        mid_NTD = orig[receiver].mid[:, -moved.shape[-2] :]
        x = plain.mlp(receiver, mid_NTD + moved).flatten(0, 2)
        for n in range(receiver + 1, last + 1):
            layer, scale = plain.layers[n], plain.config.attention_scale(n)
            k, v = (part[:, :, : self.first] for part in (orig[n].k, orig[n].v))
            if n < last:
                x = plain.steps.tail(x, k, v, self.sees_TS, layer, scale, plain.epsilon)
            else:
                x = plain.mlp(n, self._at_end(x, k, v, layer, scale))
        return x[:, :, -1].unflatten(0, moved.shape[:3])

    def _first_write(self, receiver: int, orig: list[Passed], writes_SNTD: Tensor) -> Tensor:
        """What a receiver's change of z changes in the residual, [H, S, 3, N, T, D]; in the last
        layer at END alone."""
        S, layer, old = len(writes_SNTD), self.plain.layers[receiver], orig[receiver]
        q, k, v = self.received(receiver, orig, writes_SNTD)
        k = behind(old.k[:, :, : self.first], k, S)
        v = behind(old.v[:, :, : self.first], v, S)
        tokens = 1 if receiver == len(self.plain.layers) - 1 else q.shape[2]
        q, sees = q[:, :, -tokens:], self.sees_TS[-tokens:]
        same = [part.repeat(S, 1, 1, 1) for part in (old.q[:, :, -tokens:], old.k, old.v)]
        scale, z = self.plain.config.attention_scale(receiver), []
        for site, one in enumerate((q, k, v)):
            z.append(attend(*same[:site], one, *same[site + 1 :], scale, sees))
        z = torch.stack([one.unflatten(0, (S, -1)) for one in z], 1)
        moved = z - old.z[:, -tokens:].transpose(1, 2)
        w_o_HKD = layer.w_o.view(z.shape[3], z.shape[5], -1)
        return torch.einsum("sinhtk,hkd->hsintd", moved, w_o_HKD)

    def _at_end(self, x_PNTD: Tensor, k: Tensor, v: Tensor, layer: Layer, scale: float) -> Tensor:
        """The residual [P, N, 1, D] behind the attention of the last layer, at END alone."""
        P, N, T, D = x_PNTD.shape
        K, wide = k.shape[-1], len(layer.w_o)
        rows = normed(x_PNTD, layer.ln_1_gain, layer.ln_1_bias, self.plain.epsilon, layer.w_qkv)
        q = torch.addmm(layer.b_qkv[:wide], rows[:, :, -1].flatten(0, 1), layer.w_qkv[:, :wide])
        kv = torch.addmm(layer.b_qkv[wide:], rows.view(-1, D), layer.w_qkv[:, wide:])
        own_k, own_v = kv.view(P * N, T, 2, -1, K).permute(2, 0, 3, 1, 4)
        k, v = behind(k, own_k, P), behind(v, own_v, P)
        z = attend(q.view(P * N, -1, 1, K), k, v, scale, self.sees_TS[-1:])
        return x_PNTD[:, :, -1:] + write(z.transpose(1, 2), layer).view(P, N, 1, D)
