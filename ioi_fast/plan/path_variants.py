"""What a plan is made of: prompts as lengths and positions, senders as places in the layers.

Pure Python, no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ioi_fast.asked.nodes import Sender
from ioi_fast.asked.reach import place

# Rows of one matrix product in the wave: enough to run at full rate, few enough that the hidden
# layer of the block stays in cache.
ROWS_PER_TILE = 512


@dataclass(frozen=True, slots=True)
class PathPrompt:
    """What the plan needs to know of a prompt pair.

    new_at is the token of new that matches the patched one, first_changed the first token that
    differs, at the latest the patched one. A prompt is live if a patch there can matter. `position`
    is the patched token where that is not END (or where all are).
    """

    end: int
    new_at: int
    first_changed: int
    live: bool
    position: int | None = None

    @property
    def at(self) -> int:
        """The patched token, the last one where all are."""
        return self.end if self.position is None else self.position

    @property
    def aligned(self) -> bool:
        """Whether orig and new match token by token, so that new can run as a difference."""
        return self.at == self.new_at

    @property
    def new_rows(self) -> int:
        """Tokens of the new run to compute: from the first change on, or all up to the match."""
        return self.at + 1 - self.first_changed if self.aligned else self.new_at + 1

    @property
    def kind(self) -> tuple[bool, ...]:
        """What prompts that run together share: whether they are live and aligned."""
        return self.live, self.live and self.aligned

    @property
    def length(self) -> tuple[int, ...]:
        """What is alike in prompts that run together: the lengths of both runs."""
        return self.end, self.new_at

    @property
    def last(self) -> int:
        """The last token of either run."""
        return max(self.end, self.new_at) if self.live else self.end


@dataclass(frozen=True, slots=True)
class Knocked:
    """A knock-out: its site and layer, and whether at all positions."""

    site: str
    layer: int
    everywhere: bool


@dataclass(frozen=True, slots=True)
class PathVariant:
    """One sender of the call: its place in the caller's order and its nodes by layer."""

    index: int
    sender: Sender
    reaches: int  # first layer with a receiver that it can reach

    @property
    def start(self) -> tuple[int, int]:
        """When it becomes live: (layer, 0) before that layer's MLP, (layer, 1) after it."""
        return min(place(node) for node in self.sender.nodes)

    @property
    def last(self) -> tuple[int, int]:
        """The last place where it takes something from the new run."""
        return max(place(node) for node in self.sender.nodes)

    def recomputes(self, layer: int) -> bool:
        """Whether its difference goes through the layer's MLP, which is not itself patched."""
        return self.start <= (layer, 0) and all(mlp.layer != layer for mlp in self.sender.mlps)


def tile_variants(rows: int) -> int:
    """Whole variants in one tile of a wave; they share the base rows of their prompts."""
    return max(1, ROWS_PER_TILE // rows)


def begun_before(layer: int, variants: Sequence[PathVariant]) -> int:
    """How many of some variants differ before a layer: the first ones, in order of their starts."""
    return sum(variant.start[0] < layer for variant in variants)
