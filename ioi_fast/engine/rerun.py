"""The original run again, as differences, with sites overwritten: many variants at once.

Whatever is overwritten, everything after it is recomputed (paper section 3, pass D; section 6).
Only the cells of the rerun can differ; keys and values of all other tokens are the base's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ioi_fast.engine.engine import Engine
from ioi_fast.engine.mlp import add_mlp_delta, mlp_delta
from ioi_fast.engine.overwrites import Put, Puts, head_table
from ioi_fast.engine.rerun_cells import LayerBase, RerunCells, live_rows, of_heads
from ioi_fast.kernels.reference import Linear
from ioi_fast.plan.rerun_variants import LayerStates

# When a variant begins to differ: (layer, 0) as the layer begins, (layer, 1) inside it.
Start = tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Rerun:
    """Runs variants from their first overwritten site to the final residual."""

    engine: Engine
    cells: RerunCells
    layers: Mapping[int, LayerBase]
    live: Mapping[int, Sequence[int]] | None = None  # heads that are not frozen at every cell
    products: dict[tuple[str, int], Linear] = field(default_factory=dict)  # of the live heads

    def of_heads(self, name: str, layer: int, heads: Tensor) -> Linear:
        """The product with the columns of W_QKV, or the rows of W_O, of some heads of a layer.

        That of a circuit's heads is asked by every tile, and kept; others are as many as variants.
        """
        if (name, layer) in self.products and heads.tolist() == list(self.live[layer]):
            return self.products[name, layer]
        block, H = self.engine.weights.blocks[layer], self.engine.config.n_head
        if name == "qkv":
            weight = block.w_qkv.unflatten(1, (3, H, -1))[:, :, heads].flatten(1)
        else:
            weight = block.w_o.unflatten(0, (H, -1))[heads].flatten(0, 1)
        product = self.engine.ops.exact.linear(weight, None)  # small: bf16 would save nothing
        if self.live is not None and heads.tolist() == list(self.live[layer]):
            self.products[name, layer] = product
        return product

    def run(
        self, puts: Puts, starts: Sequence[Start], states: Sequence[LayerStates] | None = None
    ) -> Tensor:
        """Change of the final residual at END, [P, N, D]; starts ascend.

        With `states` by layer, variants that are alike so far are carried once, and what comes back
        are the states after the last layer.
        """
        last = self.engine.config.n_layer - 1
        delta_PMD = self._zeros(len(starts)) if states is None else None
        for layer in range(starts[0][0], last + 1):
            delta_PMD, chosen = self._states(delta_PMD, layer, starts, states)
            own = starts if chosen is None else [starts[row] for row in chosen]
            active = sum(start <= (layer, 1) for start in own)
            rows = slice(active) if chosen is None else torch.tensor(chosen[:active])
            here = {
                site: [put.variants(rows) for put in some]
                for (site, at), some in puts.items()
                if at == layer
            }
            begun = sum(start <= (layer, 0) for start in own)
            step = LayerRun(self, layer, here, begun, at_end=layer == last)
            out = step.run(delta_PMD[:active])
            if layer == last:
                if active < len(own):
                    out = torch.cat([out, out.new_zeros(len(own) - active, *out.shape[1:])])
                return out
            delta_PMD[:active] = out
            del out  # before the next layer's is made
        return delta_PMD

    def _zeros(self, variants: int) -> Tensor:
        M, D = len(self.cells.in_orig), self.engine.config.n_embd
        return torch.zeros(variants, M, D, dtype=torch.float32)

    def _states(
        self,
        delta: Tensor | None,
        layer: int,
        starts: Sequence[Start],
        states: Sequence[LayerStates] | None,
    ) -> tuple[Tensor, Sequence[int] | None]:
        """Each state of a layer as it begins, and a variant that has it; None for one each."""
        if states is None:
            return delta, None
        chosen = states[layer].variants
        if delta is None:
            return self._zeros(len(chosen)), chosen
        return delta[torch.tensor(states[layer].parents)], chosen


@dataclass(frozen=True, slots=True, eq=False)
class LayerRun:
    """One layer of a rerun; with at_end, from its queries on, for END alone."""

    rerun: Rerun
    layer: int
    puts: Mapping[str, Sequence[Put]]
    begun: int  # variants that differ before the attention
    at_end: bool
    seen: dict[str, Tensor] | None = None  # filled with every site, if given

    def run(self, delta: Tensor) -> Tensor:
        """delta [P, M, D] before the layer -> after it, [P, M or N, D]."""
        delta = self._put("resid_pre", delta, whole=True)
        delta_mid = self._put("resid_mid", self._sum(self._attention(delta), self._ends(delta)))
        if self.seen is None and not self.puts.get("mlp_in") and not self.puts.get("mlp_out"):
            return self._add_mlp(delta_mid)
        return delta_mid + self._put("mlp_out", self._mlp(self._put("mlp_in", delta_mid)))

    def _sum(self, own: Tensor, other: Tensor) -> Tensor:
        """Their sum, in the place of the first where nobody keeps that."""
        return own.add_(other) if self.seen is None else own + other

    def _ends(self, rows: Tensor) -> Tensor:
        return rows[:, self.rerun.cells.end_rows] if self.at_end else rows

    def _put(
        self, site: str, own: Tensor, whole: bool = False, heads: Tensor | None = None
    ) -> Tensor:
        for put in self._puts_of(site, whole, heads):
            own = put.onto(own)
        return self._saw(site, own)

    def _puts_of(
        self, site: str, whole: bool = False, heads: Tensor | None = None
    ) -> Iterator[Put]:
        for put in self.puts.get(site, ()):
            if heads is not None:
                put = put.of_heads(heads)
            yield put.rows(self.rerun.cells.end_rows) if self.at_end and not whole else put

    def _saw(self, site: str, own: Tensor) -> Tensor:
        if self.seen is not None:
            self.seen[site] = own
        return own

    def _add_mlp(self, delta: Tensor) -> Tensor:
        """delta after the MLP; in its place where all of it differs."""
        run, base = self.rerun, self.rerun.layers[self.layer]
        if base.mid is not None or not delta.is_contiguous() or not live_rows(delta).all():
            return delta.add_(self._mlp(delta))
        add_mlp_delta(run.engine, self.layer, base.resid_mid, base.pre, delta)
        return delta

    def _mlp(self, delta: Tensor) -> Tensor:
        """Change of the MLP's output, recomputed where its input differs and it is not replaced."""
        run, base = self.rerun, self.rerun.layers[self.layer]
        mlp = (run.engine, self.layer, base.resid_mid, base.pre)
        live_PM = live_rows(delta)
        for put in self.puts.get("mlp_out", ()):
            if not put.added:
                live_PM &= ~(put.rows(run.cells.end_rows) if self.at_end else put).where
        live_MP = live_PM.T
        if live_MP.all() and base.mid is None:
            return mlp_delta(*mlp, delta.contiguous())
        if live_MP.all() and len(delta) == 1:
            return mlp_delta(*mlp, delta[0], base.mid)[None]
        cells, variants = live_MP.nonzero(as_tuple=True)
        out = torch.zeros_like(delta)
        if not len(cells):
            return out
        index = cells if base.mid is None else base.mid[cells]
        out[variants, cells] = mlp_delta(*mlp, delta[variants, cells], index)
        return out

    def _attention(self, delta: Tensor) -> Tensor:
        """Change of the attention's output, [P, M or N, D]."""
        delta_z, heads = self.attended(delta)
        if delta_z is None:
            return self._put("attn_out", torch.zeros_like(self._ends(delta)))
        return self._put("attn_out", self._write(delta_z, heads))

    def attended(self, delta: Tensor) -> tuple[Tensor | None, Tensor]:
        """Change of z of the heads that can differ, [P, M or N, heads, K], and these heads."""
        heads = torch.tensor(self.heads())
        if not len(heads):
            return None, heads
        puts, mixed = list(self._puts_of("z", heads=heads)), self._mixing(len(delta))
        if mixed == len(delta):
            return self._saw("z", self._mixed(delta, heads, puts)), heads
        shape = (*self._ends(delta).shape[:2], len(heads), self.rerun.engine.config.d_head)
        delta_z = delta.new_zeros(shape)
        if mixed:
            some = slice(mixed)
            delta_z[some] = self._mixed(delta[some], heads, [put.variants(some) for put in puts])
        for put in puts:
            some = slice(mixed, None)
            delta_z[some] = put.variants(some).onto(delta_z[some])
        return self._saw("z", delta_z), heads

    def _mixing(self, variants: int) -> int:
        """The variants whose attention differs; of others z changes where it is overwritten."""
        return variants if any(self.puts.get(site) for site in "qkv") else self.begun

    def heads(self) -> list[int]:
        """Heads that can differ: those overwritten and, once a variant has begun, all live ones."""
        everything, live = range(self.rerun.engine.config.n_head), self.rerun.live
        named = [put.heads for site in ("q", "k", "v", "z") for put in self.puts.get(site, ())]
        if any(heads is None for heads in named) or (self.begun and live is None):
            return list(everything)
        begun = live[self.layer] if self.begun and live is not None else ()
        return sorted({head for heads in named for head in heads} | set(begun))

    def _mixed(self, delta: Tensor, heads: Tensor, puts: Sequence[Put]) -> Tensor:
        """Change of z by rows, with what is put there, [P, M or N, heads, K]."""
        run, cells = self.rerun, self.rerun.cells
        base, shape = run.layers[self.layer], (len(heads), run.engine.config.d_head)
        dq, dk, dv = self._projections(delta, heads)
        dq = self._put("q", dq, heads=heads)
        dk, dv = (
            cells.slots(self._put(site, rows, whole=True, heads=heads).flatten(2))
            for site, rows in (("k", dk), ("v", dv))
        )
        dq = dq.flatten(2)[:, :, None] if self.at_end else cells.slots(dq.flatten(2))
        instead = [put for put in puts if not put.added]
        table = head_table(instead, (*self._ends(delta).shape[:2], *shape), cells, self.at_end)
        delta_z = run.engine.ops.attention_delta(
            *(of_heads(rows, heads) for rows in (base.q, base.k, base.v)),
            *(slots.unflatten(-1, shape) for slots in (dq, dk, dv)),
            run.engine.config.attention_scale(self.layer),
            cells.end[:, None] if self.at_end else cells.at.clamp(min=0),
            cells.at,
            *table,
        )
        rows = delta_z[:, :, 0] if self.at_end else cells.rows(delta_z.flatten(-2))
        rows = rows.view(*rows.shape[:2], *shape)
        for put in puts:
            rows = put.onto(rows) if put.added else rows
        return rows

    def _projections(self, delta: Tensor, heads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Changes of q [P, M or N, heads, K], k and v [P, M, heads, K] before overwriting."""
        run, config = self.rerun, self.rerun.engine.config
        (P, M, _), shape = delta.shape, (len(heads), config.d_head)
        parts = []
        if self.begun:
            block = run.engine.weights.blocks[self.layer]
            normed = run.engine.ops.layernorm_delta(
                run.layers[self.layer].resid_pre,
                delta[: self.begun],
                block.ln_1_gain,
                config.layer_norm_epsilon,
            )
            rows = self._of_all(normed) if len(heads) == config.n_head else self._of(normed, heads)
            parts = [part.unflatten(-1, shape) for part in rows]
        if self.begun == P:
            return tuple(parts)
        ends = len(run.cells.end_rows) if self.at_end else M
        dq, dk, dv = (delta.new_zeros(P, rows, *shape) for rows in (ends, M, M))
        for own, part in zip((dq, dk, dv)[: len(parts)], parts, strict=True):
            own[: self.begun] = part
        return dq, dk, dv

    def _of_all(self, normed: Tensor) -> list[Tensor]:
        """q, k and v of all heads, [P, M, D]; with at_end q is [P, N, D]."""
        parts, D = [], normed.shape[-1]
        for name in ("q", "kv") if self.at_end else ("qkv",):
            rows = self._ends(normed) if name == "q" else normed
            product = self.rerun.engine.packed.linear(self.layer, name).delta(rows.reshape(-1, D))
            parts += product.view(*rows.shape[:2], -1).split(D, -1)
        return parts

    def _of(self, normed: Tensor, heads: Tensor) -> list[Tensor]:
        """The same of some heads, [P, M, heads·K], from their columns alone."""
        product = self.rerun.of_heads("qkv", self.layer, heads)
        rows = product.delta(normed.flatten(0, 1)).view(*normed.shape[:2], 3, -1)
        q, k, v = rows.unbind(2)
        return [self._ends(q), k, v]

    def _write(self, delta_z: Tensor, heads: Tensor) -> Tensor:
        """δz of some heads [P, R, heads, K] times their rows of W_O."""
        run, config = self.rerun, self.rerun.engine.config
        rows = delta_z.flatten(2)
        if len(heads) == config.n_head:
            whole = run.engine.packed.linear(self.layer, "o")
            product = whole.delta(rows.reshape(-1, config.n_embd))
            return product.view(*rows.shape[:2], -1)
        product = run.of_heads("o", self.layer, heads).delta(rows.flatten(0, 1))
        return product.view(*rows.shape[:2], -1)
