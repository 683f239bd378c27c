"""What is made of a model's weights once for all calls, and whether it is still true of them.

Torch counts the changes of a tensor in place and shares the count with its views, so that 150
tensors are asked in a tenth of a millisecond. It does not count what goes past it: its own fused
optimizers, `tensor.data`, numpy or other memory that is shared, and of tensors of
torch.inference_mode nothing. So some values of every tensor are looked at as well, which shows an
edit of whole tensors; one of a few cells may be missed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import is_

import torch
from torch import Tensor

from ioi_fast.model.config import GPT2Config
from ioi_fast.model.weights import Weights

_LOOKED_AT = 32  # values of each tensor, about


@dataclass(slots=True, eq=False)
class MadeOfWeights:
    """The hash, that all is finite, and products packed by the backends, of weights as they were
    when this began."""

    config: GPT2Config
    tensors: list[Tensor]
    counting: list[Tensor]  # those that count their changes
    state: tuple[list[int], list[int]]
    places: list[Tensor]  # views of some values of every tensor
    values: Tensor  # what stood there
    weight_hash: str | None = None
    finite: bool = False
    packed: dict = field(default_factory=dict)

    @classmethod
    def of(cls, config: GPT2Config, weights: Weights) -> MadeOfWeights:
        """Nothing yet, of weights as they are now."""
        tensors = weights.tensors()
        counting = [tensor for tensor in tensors if not tensor.is_inference()]
        places = [_some(tensor.detach()) for tensor in tensors]
        return cls(config, tensors, counting, _state(tensors, counting), places, torch.cat(places))

    def still_true(self, config: GPT2Config, weights: Weights) -> bool:
        """Whether these are the same tensors, unchanged as torch counts and as some values tell."""
        now = weights.tensors()
        same = len(now) == len(self.tensors) and all(map(is_, now, self.tensors))
        if config is not self.config or not same or _state(now, self.counting) != self.state:
            return False
        return torch.equal(torch.cat(self.places), self.values)


def _state(tensors: list[Tensor], counting: list[Tensor]) -> tuple[list[int], list[int]]:
    """Where tensors lie, and how often those that count were changed."""
    lie = [tensor.data_ptr() for tensor in tensors]
    return lie, [tensor._version for tensor in counting]


def _some(tensor: Tensor) -> Tensor:
    """A view of values from all over a tensor."""
    if tensor.is_contiguous():
        tensor = tensor.view(-1)
    while tensor.dim() > 1:
        tensor = tensor[..., 0]
    # An odd step, so that rows are met in different columns.
    return tensor[:: max(1, len(tensor) // _LOOKED_AT) | 1]
