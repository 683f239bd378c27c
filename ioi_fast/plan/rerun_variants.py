"""Variants of reruns in integers: what each changes where, and which of them are alike so far.

Pure Python, no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ioi_fast.asked.sites import BEFORE, SITES


@dataclass(frozen=True, slots=True, order=True)
class Change:
    """One site that takes another value at a position, which stands here by its name."""

    layer: int
    site: str
    head: int  # −1 where the site belongs to no head
    position: str

    @property
    def start(self) -> tuple[int, int]:
        """When a variant with this begins to differ: (layer, 0) before the layer's attention."""
        return (self.layer, 0 if SITES[self.site].at == BEFORE else 1)


@dataclass(frozen=True, slots=True)
class RerunVariant:
    """What one variant of the call changes, in order, and its place in the caller's order."""

    index: int
    changes: tuple[Change, ...]

    @property
    def start(self) -> tuple[int, int]:
        """When it begins to differ."""
        return min(change.start for change in self.changes)

    def at(self, layer: int) -> tuple[Change, ...]:
        """What it changes in a layer."""
        return tuple(change for change in self.changes if change.layer == layer)

    @property
    def path(self) -> tuple:
        """What it changes layer by layer; a layer without changes comes after one with any."""
        layers = [self.at(layer) for layer in range(max(c.layer for c in self.changes) + 1)]
        return tuple((0, changes) if changes else (1,) for changes in layers)


@dataclass(frozen=True, slots=True)
class RerunPrompt:
    """What the plan needs to know of a prompt: its END, the last token of either run, the token of
    each named position, −1 for all tokens, in orig and in new, and the first token that differs."""

    end: int
    last: int
    at: tuple[int, ...]
    at_new: tuple[int, ...]
    first_changed: int = 0

    @property
    def kind(self) -> tuple[bool, ...]:
        """What prompts that run together share: any may."""
        return ()

    @property
    def length(self) -> tuple[int, ...]:
        """What is alike in prompts that run together."""
        return (self.last,)


@dataclass(frozen=True, slots=True)
class LayerStates:
    """The different states of some variants after a layer: which state of the layer before each
    goes on from, and a variant that has it."""

    parents: tuple[int, ...]
    variants: tuple[int, ...]


def shared_states(
    variants: Sequence[RerunVariant], n_layer: int
) -> tuple[list[LayerStates], list[int]]:
    """States by layer, and the last state of each variant; before layer 0 there is one."""
    state = [0] * len(variants)
    layers = []
    for layer in range(n_layer):
        found: dict[tuple, int] = {}
        parents, first = [], []
        for row, variant in enumerate(variants):
            key = (state[row], variant.at(layer))
            if key not in found:
                found[key] = len(found)
                parents.append(state[row])
                first.append(row)
            state[row] = found[key]
        layers.append(LayerStates(tuple(parents), tuple(first)))
    return layers, state
