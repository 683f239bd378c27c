"""A model with what runs it, which goes through the fast path as one."""

from __future__ import annotations

from dataclasses import dataclass

from ioi_fast.engine.ops import Ops
from ioi_fast.engine.packed_weights import PackedWeights
from ioi_fast.model.config import GPT2Config
from ioi_fast.model.gpt2 import GPT2
from ioi_fast.model.weights import Weights


@dataclass(frozen=True, slots=True, eq=False)
class Engine:
    """A model, its weights as a backend packs them, and the backend's operations."""

    model: GPT2
    packed: PackedWeights
    ops: Ops

    @classmethod
    def of(cls, model: GPT2, ops: Ops) -> Engine:
        """The model with its weights as these operations want them."""
        return cls(model, PackedWeights.of(model, ops), ops)

    @property
    def exact(self) -> Engine:
        """What runs the two runs, which are fp32 in every precision."""
        return self if self.ops.exact is self.ops else Engine.of(self.model, self.ops.exact)

    @property
    def config(self) -> GPT2Config:
        """The model's."""
        return self.model.config

    @property
    def weights(self) -> Weights:
        """The model's, as they lie."""
        return self.model.weights
