"""Where the tensors of a call go: what is wide with the model, the integers of plans on the host.

The table of a backend opens torch's default device while a call runs, so that new tensors are made
there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields

import torch
from torch import Tensor

from ioi_fast.asked.positions import Position
from ioi_fast.asked.prompts import PromptPairs


def here(tensor: Tensor) -> Tensor:
    """The tensor on the device of the call that is running."""
    return tensor.to(torch.get_default_device())


def on_host(indices: Sequence[int]) -> Tensor:
    """Indices into what stays on the host, int64."""
    return torch.tensor(indices, dtype=torch.int64, device="cpu")


def pairs_here(pairs: PromptPairs, chosen: Tensor) -> PromptPairs:
    """Some of a call's prompts, their tensors on the device of the call that is running."""
    # Metrics read what is extra from the caller's pairs.
    part, placed = pairs.without_extra().select(chosen), object.__new__(PromptPairs)
    for field in fields(part):
        object.__setattr__(placed, field.name, _moved(getattr(part, field.name)))
    return placed


def blocks_here(
    pairs: PromptPairs, blocks: Iterable[Sequence[int]]
) -> Iterator[tuple[Sequence[int], Tensor, PromptPairs]]:
    """Each block of a call's prompts: which they are, the same as indices, and their pairs here."""
    for block in blocks:
        chosen = on_host(block)
        yield block, chosen, pairs_here(pairs, chosen)


def position_here(position: Position, chosen: Tensor) -> Position:
    """A position of some of a call's prompts, on the device of the call that is running."""
    part = position.select(chosen)
    if part.orig is None or part.new is None:
        return part
    return Position(part.name, here(part.orig), here(part.new))


def _moved(value: object) -> object:
    if isinstance(value, dict):
        return {role: here(at) for role, at in value.items()}
    return here(value) if isinstance(value, Tensor) else value
