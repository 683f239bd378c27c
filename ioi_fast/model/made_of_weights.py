"""What is made of a model's weights once for all calls, and whether it is still true of them.

Torch counts the changes of a tensor in place and shares the count with its views, so that 150
tensors are asked in a tenth of a millisecond. It does not count what goes past it: through
`tensor.data`, numpy or other memory that is shared, and of tensors of torch.inference_mode nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import is_

from torch import Tensor

from ioi_fast.model.config import GPT2Config
from ioi_fast.model.weights import Weights


@dataclass(slots=True, eq=False)
class MadeOfWeights:
    """The hash, that all is finite, and products packed by the backends, of weights as they were
    when this began."""

    config: GPT2Config
    tensors: list[Tensor]
    counting: list[Tensor]  # those that count their changes
    state: tuple[list[int], list[int]]
    weight_hash: str | None = None
    finite: bool = False
    packed: dict = field(default_factory=dict)

    @classmethod
    def of(cls, config: GPT2Config, weights: Weights) -> MadeOfWeights:
        """Nothing yet, of weights as they are now."""
        tensors = weights.tensors()
        counting = [tensor for tensor in tensors if not tensor.is_inference()]
        return cls(config, tensors, counting, _state(tensors, counting))

    def still_true(self, config: GPT2Config, weights: Weights) -> bool:
        """Whether these are the same tensors, unchanged as far as torch counts."""
        now = weights.tensors()
        same = len(now) == len(self.tensors) and all(map(is_, now, self.tensors))
        return config is self.config and same and _state(now, self.counting) == self.state


def _state(tensors: list[Tensor], counting: list[Tensor]) -> tuple[list[int], list[int]]:
    """Where tensors lie, and how often those that count were changed."""
    lie = [tensor.data_ptr() for tensor in tensors]
    return lie, [tensor._version for tensor in counting]
