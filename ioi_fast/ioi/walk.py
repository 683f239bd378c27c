"""Plain runs layer by layer, for what is read of heads at every token without changing anything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ioi_fast.engine import choose_ops
from ioi_fast.engine.clean_run import CleanRun, Grid, LayerState, tiles
from ioi_fast.engine.engine import Engine
from ioi_fast.model.gpt2 import GPT2
from ioi_fast.model.layers import attention_pattern
from ioi_fast.own_settings import own_settings
from ioi_fast.plan.blocks import TOKENS_PER_BLOCK


@dataclass(frozen=True, slots=True, eq=False)
class Walked:
    """A layer of a run of some prompts."""

    model: GPT2
    layer: int
    prompts: slice
    state: LayerState
    T: int

    @property
    def resid_pre(self) -> Tensor:
        """[N, T, D]."""
        return self.state.resid_pre.unflatten(0, (-1, self.T))

    @property
    def z(self) -> Tensor:
        """[N, T, H, K], with the values' bias in it."""
        return self.state.z.unflatten(0, (-1, self.T))

    @property
    def pattern(self) -> Tensor:
        """Attention of every head, [N, H, T, T]."""
        state = self.state
        return attention_pattern(state.q, state.k, self.layer, self.model.config)

    def written(self, z: Tensor) -> Tensor:
        """What heads write for z [..., H, K], without b_O: [..., H, D]."""
        H = self.model.config.n_head
        w_o_HKD = self.model.weights.blocks[self.layer].w_o.unflatten(0, (H, -1))
        return torch.einsum("...hk,hkd->...hd", z, w_o_HKD)


@torch.no_grad()
def walk(model: GPT2, tokens: Tensor, layers: int | None = None) -> Iterator[Walked]:
    """The first `layers` layers (default: all) of blocks of prompts of tokens [N, T].

    Every block goes through its layers before the next one begins. It runs in fp32 on the CPU.
    Raises as `GPT2.check_tokens` does.
    """
    model.check_tokens(tokens)
    model = model.to(device="cpu", dtype=torch.float32)
    table, (N, T) = choose_ops.cpu(), tokens.shape
    engine = Engine.of(model, table)
    for some in tiles(N, max(1, TOKENS_PER_BLOCK // T)):
        members = tokens[some]
        end = torch.full((len(members),), T - 1)
        run = CleanRun(engine, Grid.of(torch.zeros_like(end), end))
        walking = run.walk(members, layers)
        while True:
            with own_settings(), table.workspace():
                step = next(walking, None)
            if step is None:
                break
            layer, state, _ = step
            yield Walked(model, layer, some, state, T)
