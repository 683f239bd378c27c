"""Plans within a memory budget: what one takes at most, and how it is cut until it fits.

Pure Python, no torch. It stands above plans: they know their blocks and no bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TypeVar

from ioi_fast.plan.memory.of_plans import of_pair_sweep, of_path_patch, of_reruns
from ioi_fast.plan.memory.room import Room, of_prompts
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
        larger = sizes
        while limit is not None and (needed := self.peak_bytes(plan)) > limit:
            smaller = plan.smaller(sizes)
            if smaller is None:
                raise ValueError(
                    f"max_memory must be at least {needed} bytes for {_LEAST[type(plan)]}, "
                    f"got {limit}"
                )
            larger, sizes, plan = sizes, smaller, plan.cut(smaller)
        if larger == sizes:
            return plan
        # Half was enough; three quarters may be.
        between = plan.cut(tuple((a + b) // 2 for a, b in zip(larger, sizes, strict=True)))
        return between if self.peak_bytes(between) <= limit else plan

    def counted(self, plan: Of) -> Of:
        """The plan with what memory grows by at most in the call, packed weights not counted."""
        return replace(plan, peak_bytes=self.peak_bytes(plan))

    def peak_bytes(self, plan: Plan) -> int:
        """That bound: of the block that takes most."""
        blocks = {tuple(plan.prompts[i] for i in block) for block in plan.prompt_blocks}
        floats = max(_OF_BLOCK[type(plan)](plan, block) for block in blocks)
        return self.room.bytes(floats) + _beside(plan)


def _beside(plan: Plan) -> int:
    """Bytes that grow with all prompts, whatever their blocks."""
    lasts = [prompt.last for prompt in plan.prompts]
    if isinstance(plan, RerunPlan):
        # Prompts of means, which may be the same, are looked at before or after.
        return max(of_prompts(lasts, plan.asked), of_prompts(plan.mean_last, 0))
    return of_prompts(lasts, plan.senders if isinstance(plan, PathPlan) else 0)


_OF_BLOCK = {PathPlan: of_path_patch, PairPlan: of_pair_sweep, RerunPlan: of_reruns}
_LEAST = {
    PathPlan: "one prompt and one sender",
    PairPlan: "one prompt",
    RerunPlan: "one prompt and one variant",
}
