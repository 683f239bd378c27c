"""J4's cone in plain torch: the circuit's tokens alone, and what variants have in common once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ioi_fast.benchmarks.gpu.jobs.job import Job
from ioi_fast.benchmarks.gpu.peers.plain_gpt2 import (
    Layer,
    PlainGPT2,
    attend,
    behind,
    split_heads,
    write,
)
from ioi_fast.benchmarks.gpu.peers.plain_sets import SetSweep


class _Heads(NamedTuple):
    """The circuit's heads of a layer by the cells at which they live, and their weights."""

    heads: Tensor  # [h]
    cells: Tensor  # [h]
    at: Tensor  # [h], their tokens
    by_cell: list[tuple[int, slice]]
    weights: Layer  # the layer's, with these heads alone in w_qkv and w_o
    sees_1h1T: Tensor  # which keys each sees at its cell


class _States(NamedTuple):
    """Different states of variants in a layer: the state before it from which each goes on (None:
    the same ones), and which of the layer's live heads are not knocked out."""

    parents: Tensor | None  # [S]
    alive: Tensor  # [S, h]


class SetCone(SetSweep):
    """Heads of a circuit write at its roles alone, so that no other token ever differs.

    Variants that have knocked out the same so far are one state. A head's query is needed at its
    own token, and in the last layer END alone.
    """

    def __init__(self, plain: PlainGPT2, job: Job) -> None:
        super().__init__(plain, job)
        T = self.orig.shape[1]
        tokens = sorted({self.token(role) for role in self.roles.values()} | {T - 1})
        others = [at for at in range(T) if at not in tokens]
        self.cells, self.others = self.index(tokens), self.index(others)
        # Keys stand in this order: those of other tokens, then those of the cells.
        self.sees_CT = self.cells[:, None] >= torch.cat([self.others, self.cells])
        self.heads = [self._heads(layer, tokens) for layer in range(len(plain.layers))]

    def _heads(self, layer: int, tokens: list[int]) -> _Heads | None:
        own = [(tokens.index(self.token(role)), head) for (n, head), role in self.roles.items()
               if n == layer]  # fmt: skip
        if not own:
            return None
        cells, heads = zip(*sorted(own), strict=True)
        index, cell = self.index(heads), self.index(cells)
        whole, K = self.plain.layers[layer], self.plain.config.d_head
        weights = whole._replace(
            w_qkv=whole.w_qkv.unflatten(1, (3, -1, K))[:, :, index].flatten(1).contiguous(),
            b_qkv=whole.b_qkv.view(3, -1, K)[:, index].flatten(),
            w_o=whole.w_o.view(len(whole.w_o) // K, K, -1)[index],
        )
        by_cell, begin = [], 0
        for one in sorted(set(cells)):
            by_cell.append((one, slice(begin, begin + cells.count(one))))
            begin += cells.count(one)
        sees = self.sees_CT[cell][None, :, None]
        return _Heads(index, cell, self.cells[cell], by_cell, weights, sees)

    @property
    def tokens(self) -> int:
        return len(self.cells)

    def asked(self, knocked_PLH: Tensor) -> tuple[list[_States], Tensor]:
        """The states of each layer, and that of every variant after the last one."""
        layers, state = [], torch.zeros(len(knocked_PLH), 1, dtype=torch.int64)
        for n, heads in enumerate(self.heads):
            own = knocked_PLH[:, n, [] if heads is None else heads.heads.tolist()]
            found, of_variant = torch.cat([state, own.long()], 1).unique(dim=0, return_inverse=True)
            parents, dead = found[:, 0], found[:, 1:].bool()
            same = len(parents) == state.max() + 1
            layers.append(_States(None if same else self.index(parents), self.index(~dead)))
            state = of_variant[:, None]
        return layers, self.index(state[:, 0])

    def shared(self, means: list[Tensor]) -> list[tuple]:
        """By layer: what heads at their means write at the cells [C, D], and keys and values of
        the other tokens [N, h, T − C, K], which are the circuit's own."""
        nothing, found = torch.zeros_like(self.live_LTH[None, :, 0]), []
        _, kept = self.run(nothing, means)
        for n, (heads, layer) in enumerate(zip(self.heads, self.plain.layers, strict=True)):
            fixed = write(means[n][None, self.cells], layer)[0]
            pair = kept[n] if heads is not None else ()
            found.append((fixed, *(part[:, heads.heads][:, :, self.others] for part in pair)))
        return found

    def final(self, asked: tuple, means: list[Tensor], shared: list[tuple]) -> Tensor:
        plain, (layers, of_variant) = self.plain, asked
        x_SNCD = plain.embedded(self.orig)[None, :, self.cells]
        for n, (states, heads) in enumerate(zip(layers, self.heads, strict=True)):
            if states.parents is not None:
                x_SNCD = x_SNCD[states.parents]
            fixed, *others = shared[n]
            x_SNCD, before = x_SNCD + fixed, x_SNCD
            if heads is not None:
                self._add_heads(n, heads, states, before, others, means[n], x_SNCD)
            if n == len(layers) - 1:
                x_SNCD = x_SNCD[:, :, -1:]
            x_SNCD = plain.mlp(n, x_SNCD)
        return x_SNCD[of_variant, :, 0]

    def _add_heads(
        self, n: int, heads: _Heads, states: _States, before: Tensor, others: list,
        mean_THK: Tensor, x_SNCD: Tensor,
    ) -> None:  # fmt: skip
        """Adds to `x_SNCD` what the heads that live write beyond their means."""
        config, S = self.plain.config, len(before)
        q, k, v = split_heads(before.flatten(0, 1), heads.weights, config.layer_norm_epsilon,
                              config.d_head)  # fmt: skip
        own = torch.arange(len(heads.heads), device=q.device)
        q = q[:, own, heads.cells][:, :, None]
        k, v = (behind(old, new, S) for old, new in zip(others, (k, v), strict=True))
        z = attend(q, k, v, config.attention_scale(n), heads.sees_1h1T)[:, :, 0]
        moved = z.unflatten(0, (S, -1)) - mean_THK[heads.at, heads.heads]
        moved = moved * states.alive[:, None, :, None]
        for cell, some in heads.by_cell:
            w_o = heads.weights.w_o[some].flatten(0, 1)
            x_SNCD[:, :, cell] += moved[:, :, some].flatten(-2) @ w_o
