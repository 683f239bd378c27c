"""What a sweep over pairs of heads gives back, and how it is gathered receiver by receiver."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ioi_fast.model.config import GPT2Config
from ioi_fast.results.result import is_clear, plain, relative


class RankedPair(NamedTuple):
    """One row of a ranking of pairs: the path, its effect and its standard error."""

    sender: str
    receiver: str
    effect: float
    stderr: float

    @property
    def clear(self) -> bool:
        """Whether the effect is more than two standard errors from zero; False where the error is
        not known, as of a single prompt."""
        return is_clear(self.effect, self.stderr)


@dataclass(frozen=True, slots=True, eq=False)
class PairResult:
    """Effects of paths from one head to one input of a later head: metric(patched) − metric(base).

    effect and stderr [I, L, H, L, H] by (input, sender layer, sender head, receiver layer, receiver
    head), 0 where the sender is not earlier; values [I, L, H, L, H, N] if they were asked per
    prompt. All float32 on the CPU.
    """

    inputs: tuple[str, ...]
    values: Tensor | None
    effect: Tensor
    stderr: Tensor
    base: Tensor
    backend: str
    precision: str
    provenance: dict[str, object]

    @property
    def shape(self) -> tuple[int, ...]:
        """I, L, H, L, H."""
        return tuple(self.effect.shape)

    @property
    def relative(self) -> Tensor | None:
        """`effect` as a share of |mean base metric|, (F_patched − F_base)/|F_base| (section 2);
        None for kl and rank, which have no share."""
        return relative(self.effect, self.base, self.provenance)

    def ranking(self, count: int | None = None) -> list[RankedPair]:
        """(sender, receiver, effect, standard error), the largest |effect| first; the `clear` of
        each says whether it is more than two standard errors from zero.

        Pairs in which the sender is not earlier are left out.
        """
        layers = torch.arange(self.shape[1], device="cpu")
        earlier = (layers[:, None] < layers)[None, :, None, :, None].expand(self.shape)
        places = earlier.flatten().nonzero().squeeze(1)
        strength = self.effect.flatten()[places].abs()
        chosen = places[strength.argsort(descending=True, stable=True)[:count]]
        effect, stderr = (t.flatten()[chosen].tolist() for t in (self.effect, self.stderr))
        rows = torch.stack(torch.unravel_index(chosen, self.shape), 1).tolist()
        return [
            RankedPair(f"{a}.{b}", f"{c}.{d}.{self.inputs[i]}", mean, error)
            for (i, a, b, c, d), mean, error in zip(rows, effect, stderr, strict=True)
        ]

    def to_dict(self) -> dict[str, object]:
        """Everything as plain lists and strings, ready for JSON; None for what is not finite."""
        return {
            "inputs": list(self.inputs),
            "effect": plain(self.effect.tolist()),
            "stderr": plain(self.stderr.tolist()) if self.base.shape[0] > 1 else None,
            "values": None if self.values is None else plain(self.values.tolist()),
            "base": plain(self.base.tolist()),
            "backend": self.backend,
            "precision": self.precision,
            "provenance": self.provenance,
        }

    def __repr__(self) -> str:
        return (
            f"PairResult(effect {list(self.shape)}, {self.base.shape[0]} prompts, "
            f"mean base {float(self.base.double().mean()):.4g}, {self.backend}, {self.precision})"
        )


class PairValues:
    """Values as they come, receiver by receiver: their sums, and all of them if asked."""

    def __init__(self, inputs: int, config: GPT2Config, prompts: int, per_prompt: bool) -> None:
        L, H = config.n_layer, config.n_head
        shape = (inputs, L * H, L, H)
        self._shape, self._prompts = (inputs, L, H, L, H), prompts
        self._sum, self._squares = (torch.zeros(shape, dtype=torch.float64) for _ in range(2))
        self._values = torch.zeros(*shape, prompts, dtype=torch.float32) if per_prompt else None

    def keep(
        self, receiver: tuple[int, int, int], senders: slice, prompts: Tensor, values: Tensor
    ) -> None:
        """Takes values [P, n] of a receiver (input, layer, head) from senders l·H + h."""
        index, layer, head = receiver
        exact = values.double()
        self._sum[index, senders, layer, head] += exact.sum(-1)
        self._squares[index, senders, layer, head] += exact.square().sum(-1)
        if self._values is not None:
            rows = self._values[index, senders, layer, head]
            rows[:, prompts] = values.float()

    @property
    def values(self) -> Tensor | None:
        """All values, [I, L, H, L, H, N]."""
        return None if self._values is None else self._values.view(*self._shape, self._prompts)

    def effect(self) -> Tensor:
        """Mean over prompts, [I, L, H, L, H]."""
        return (self._sum / self._prompts).view(self._shape).float()

    def stderr(self) -> Tensor:
        """Standard error of the mean; NaN for a single prompt."""
        if self._prompts == 1:
            return torch.full(self._shape, math.nan, dtype=torch.float32, device="cpu")
        scatter = (self._squares - self._sum.square() / self._prompts).clamp(min=0)
        error = (scatter / (self._prompts - 1) / self._prompts).sqrt()
        return error.view(self._shape).float()
