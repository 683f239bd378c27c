"""The base run: the original prompts layer by layer, with packed weights, on live tokens only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ioi_fast.engine.engine import Engine
from ioi_fast.model.layers import split_heads


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Which cells (prompt, token) of [N, T] are rows of a run: from a first token to END."""

    N: int
    T: int
    cells: Tensor  # [R] flat into N·T, ascending
    end: Tensor  # [N]
    end_rows: Tensor  # [N] the row of each prompt's END

    @classmethod
    def of(cls, first: Tensor, end: Tensor, T: int | None = None) -> Grid:
        """The grid of prompts whose rows are tokens first[n] to end[n] of T (default: all)."""
        T = int(end.max()) + 1 if T is None else T
        tokens_T = torch.arange(T)
        chosen_NT = (tokens_T >= first[:, None]) & (tokens_T <= end[:, None])
        end_rows = chosen_NT.sum(1).cumsum(0) - 1
        return cls(len(end), T, chosen_NT.flatten().nonzero().squeeze(1), end, end_rows)

    def spread(self, rows: Tensor) -> Tensor:
        """Rows [R, W] at their cells of [N, T, W], zero elsewhere."""
        if len(self.cells) == self.N * self.T:
            return rows.view(self.N, self.T, -1)
        return (
            rows.new_zeros(self.N * self.T, rows.shape[1])
            .index_copy_(0, self.cells, rows)
            .view(self.N, self.T, -1)
        )

    def gather(self, padded: Tensor) -> Tensor:
        """The rows [R, ...] of [N, T, ...]; raises ValueError for another N or T."""
        if padded.shape[:2] != (self.N, self.T):
            # Rows are found by N·T: with another T they would be those of other tokens.
            raise ValueError(f"expected [{self.N}, {self.T}, ...], got {list(padded.shape)}")
        if len(self.cells) == self.N * self.T:
            return padded.flatten(0, 1)
        return padded[self.cells // self.T, self.cells % self.T]


@dataclass(frozen=True, slots=True, eq=False)
class Replaced:
    """Where a run has another value at z or mlp_out than it computes, by rows, and what it has."""

    where: Tensor  # bool [R, H] at z, [R] at mlp_out
    value: Tensor  # [R, H, K] or [R, D]

    def onto(self, own: Tensor) -> Tensor:
        """The site with these values in place."""
        return torch.where(self.where[..., None], self.value, own)

    def rows(self, rows: Tensor) -> Replaced:
        """At some rows."""
        return Replaced(self.where[rows], self.value[rows])


Ablated = Mapping[str, Replaced]  # by site: "z", "mlp_out"


@dataclass(frozen=True, slots=True, eq=False)
class LayerState:
    """What a layer of the original run leaves behind: rows R of the grid, or END alone."""

    resid_pre: Tensor  # [R, D]
    q: Tensor  # [N, T, H, K], or [N, 1, H, K] at END alone
    k: Tensor  # [N, T, H, K]
    v: Tensor  # [N, T, H, K]
    z: Tensor  # like q, by rows
    resid_mid: Tensor  # [R or N, D]
    pre: Tensor  # [R or N, F] input of the activation
    mlp_out: Tensor  # [R or N, D]
    at_end: bool
    computed: dict[str, Tensor]  # z and mlp_out as they were before they were replaced

    @property
    def resid_post(self) -> Tensor:
        """The residual stream behind the layer, [R or N, D]."""
        return self.resid_mid + self.mlp_out


@dataclass(frozen=True, slots=True, eq=False)
class CleanRun:
    """The original run, layer by layer, with packed weights."""

    engine: Engine
    grid: Grid

    def embed(self, tokens: Tensor) -> Tensor:
        """Residual rows before the first layer, [R, D]."""
        weights = self.engine.weights
        position = self.grid.cells % self.grid.T
        rows = self.grid.gather(padded(tokens, self.grid.T))
        return weights.wte[rows] + weights.wpe[position]

    def walk(
        self,
        tokens: Tensor,
        layers: int | None = None,
        *,
        last_at_end: bool = False,
        ablated: Callable[[int], Ablated | None] = lambda layer: None,
    ) -> Iterator[tuple[int, LayerState, Ablated | None]]:
        """The first layers (default: all) one after the other: each, what it leaves behind, and
        what was replaced in it; with last_at_end the model's last at END alone.

        A state is as large as a layer of the run: who walks lets go of it before the next is made.
        """
        resid, last = self.embed(tokens), self.engine.config.n_layer - 1
        count = last + 1 if layers is None else layers
        for layer in range(count):
            replaced = ablated(layer)
            state = self.layer(layer, resid, last_at_end and layer == last, replaced)
            yield layer, state, replaced
            if layer + 1 < count:
                resid = state.resid_post
            del state, replaced

    def layer(
        self,
        layer: int,
        resid: Tensor,
        end_only: bool,
        ablated: Ablated | None = None,
    ) -> LayerState:
        """One layer on rows [R, D]; with end_only everything after k and v at END alone."""
        q, k, v = self.projections(layer, resid, end_only)
        computed: dict[str, Tensor] = {}

        def used(site: str, own: Tensor) -> Tensor:
            if not ablated or site not in ablated:
                return own
            computed[site] = own
            replaced = ablated[site]
            return (replaced.rows(self.grid.end_rows) if end_only else replaced).onto(own)

        z = used("z", self._mixed(layer, q, k, v, end_only))
        before = resid[self.grid.end_rows] if end_only else resid
        resid_mid = before + self.engine.packed.linear(layer, "o")(z.flatten(-2))
        pre, mlp_out = self._mlp(layer, resid_mid)
        mlp_out = used("mlp_out", mlp_out)
        return LayerState(resid, q, k, v, z, resid_mid, pre, mlp_out, end_only, computed)

    def projections(
        self, layer: int, resid: Tensor, end_only: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v, [N, T, H, K]; with end_only q is [N, 1, H, K]."""
        grid, config = self.grid, self.engine.config
        block = self.engine.weights.blocks[layer]
        normed = layernorm(resid, block.ln_1_gain, block.ln_1_bias, config.layer_norm_epsilon)
        if not end_only:
            return split_heads(grid.spread(self.engine.packed.linear(layer, "qkv")(normed)), config)
        q = self._heads(self.engine.packed.linear(layer, "q")(normed[grid.end_rows])[:, None])
        k, v = grid.spread(self.engine.packed.linear(layer, "kv")(normed)).chunk(2, -1)
        return q, self._heads(k), self._heads(v)

    def _mixed(self, layer: int, q: Tensor, k: Tensor, v: Tensor, end_only: bool) -> Tensor:
        """z by rows, [R or N, H, K]."""
        scale = self.engine.config.attention_scale(layer)
        if end_only:
            return self._mixed_at_end(q, k, v, scale)
        return self.grid.gather(self.engine.ops.attention(q, k, v, scale))

    def _mixed_at_end(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """z of one query a prompt, [N, H, K]: plain sums, since torch's own kernel cuts the keys of
        a single query into as many parts as there are threads."""
        later_NS = torch.arange(k.shape[1]) > self.grid.end[:, None]
        scores_NSH = (q * k).sum(-1).mul_(scale).masked_fill_(later_NS[:, :, None], -torch.inf)
        return (scores_NSH.softmax(1)[..., None] * v).sum(1)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.engine.config.n_head, self.engine.config.d_head))

    def _mlp(self, layer: int, resid_mid: Tensor) -> tuple[Tensor, Tensor]:
        """Input of the activation and output of the MLP, rows [R, D] -> [R, F], [R, D]."""
        config, block = self.engine.config, self.engine.weights.blocks[layer]
        packed = self.engine.packed
        weights = (packed.linear(layer, "mlp_in"), packed.linear(layer, "mlp_out"))
        # The kernel reads them as they lie; they may be a caller's columns.
        gain, bias = block.ln_2_gain.contiguous(), block.ln_2_bias.contiguous()
        layernorm = (gain, bias, config.layer_norm_epsilon)
        return self.engine.ops.mlp(resid_mid, *layernorm, *weights, config.activation_function)


def layernorm(x: Tensor, gain: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    """LayerNorm over the last axis, [..., D] -> [..., D]."""
    return F.layer_norm(x, gain.shape, gain, bias, epsilon)


def padded(tokens: Tensor, T: int) -> Tensor:
    """Tokens [N, T]: cut, or filled up with token 0 that nothing reads."""
    return F.pad(tokens[:, :T], (0, max(0, T - tokens.shape[1])))


def tiles(total: int, size: int) -> list[slice]:
    """Slices of at most `size` that cover 0..total."""
    return [slice(start, min(start + size, total)) for start in range(0, total, size)]
