"""What a backend hands back before it is labelled, and how it says how far it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

Advance = Callable[[int], None]
# Takes (input, layer, head) of a receiver, its first senders [P], prompts [n] and values [P, n].
Keep = Callable[[tuple[int, int, int], slice, Tensor, Tensor], None]


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """Base metric [N] and metric(patched) − metric(base) of each variant [S, N]."""

    base: Tensor
    values: Tensor
