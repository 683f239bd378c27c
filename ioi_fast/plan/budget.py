"""Plans within a memory budget: what one takes, and how it is halved until it fits.

Pure Python, no torch. It stands above plans: they know their blocks and no bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from ioi_fast.plan.memory import pair_sweeps, path_patches, rerun_plans
from ioi_fast.plan.memory.room import Room
from ioi_fast.plan.pair_sweep import PairPlan
from ioi_fast.plan.path_patch import PathPlan
from ioi_fast.plan.reruns import RerunPlan

Plan = PathPlan | PairPlan | RerunPlan
Of = TypeVar("Of", PathPlan, PairPlan, RerunPlan)


@dataclass(frozen=True, slots=True)
class Budget:
    """How much memory a call may take, and what it takes beside the tensors of its plan."""

    max_memory: int | None = None
    room: Room = field(default_factory=Room)

    def fitted(self, plan: Of) -> Of:
        """The plan in blocks that fit; as it is where there is no limit.

        Raises ValueError when max_memory is too small for the smallest blocks.
        """
        sizes, limit = plan.sizes, self.max_memory
        while limit is not None and (needed := self.peak_bytes(plan)) > limit:
            smaller = plan.smaller(sizes)
            if smaller is None:
                raise ValueError(
                    f"max_memory must be at least {needed} bytes for {_LEAST[type(plan)]}, "
                    f"got {limit}"
                )
            sizes, plan = smaller, plan.cut(smaller)
        return plan

    def counted(self, plan: Of) -> Of:
        """The plan with the estimate of what memory grows by during the call, packed weights not
        counted."""
        return replace(plan, peak_bytes=self.peak_bytes(plan))

    def peak_bytes(self, plan: Plan) -> int:
        """That estimate: of the block that takes most."""
        blocks = {tuple(plan.prompts[i] for i in block) for block in plan.prompt_blocks}
        of_block = _OF_BLOCK[type(plan)](plan)
        return self.room.bytes(max(map(of_block, blocks))) + _MEMORY[type(plan)].beside(plan)


def _of_path(plan: PathPlan) -> Callable:
    variants = max((len(block) for block in plan.variant_blocks), default=1)
    return lambda block: path_patches.of_block(plan, block, variants)


def _of_pairs(plan: PairPlan) -> Callable:
    return lambda block: pair_sweeps.of_block(plan, block)


def _of_reruns(plan: RerunPlan) -> Callable:
    tiles = rerun_plans.Tiles(plan)
    return lambda block: rerun_plans.of_block(plan, block, tiles)


_OF_BLOCK = {PathPlan: _of_path, PairPlan: _of_pairs, RerunPlan: _of_reruns}
_MEMORY = {PathPlan: path_patches, PairPlan: pair_sweeps, RerunPlan: rerun_plans}
_LEAST = {
    PathPlan: "one prompt and one sender",
    PairPlan: "one prompt",
    RerunPlan: "one prompt and one variant",
}
