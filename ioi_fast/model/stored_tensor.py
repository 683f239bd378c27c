"""One tensor that lies in a file or in another model and has not been read yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ioi_fast.outside.quoting import cut, quoted

_FLOATS = frozenset({"F16", "BF16", "F32", "F64"})  # as safetensors calls them


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Name, place, type and shape of a tensor, and how to fetch its values."""

    name: str  # as it is stored, with its prefix
    origin: str  # the file, or the model
    dtype: str  # safetensors' name of the type
    shape: tuple[int, ...]
    fetch: Callable[[], Tensor]

    def __str__(self) -> str:
        return f"{self.origin}: tensor {quoted(self.name)}"

    def check(self, shape: tuple[int, ...]) -> None:
        """Raises ValueError, before anything is read, unless this is a float tensor of a shape."""
        if self.dtype not in _FLOATS:
            raise ValueError(
                f"{self} must hold floats (fp16, bf16, fp32 or fp64), got {cut(self.dtype, 60)}"
            )
        if self.shape != shape:
            hint = ""
            if len(shape) == 2 and self.shape == shape[::-1]:
                hint = " (GPT-2's matrices lie [in, out], embeddings [entries, width])"
            raise ValueError(
                f"{self} must have shape {quoted(list(shape))}, "
                f"got {quoted(list(self.shape))}{hint}"
            )

    def read(self) -> Tensor:
        """The values in fp32 and in memory of their own, on the CPU.

        Raises ValueError when one of them is NaN or infinite.
        """
        values = self.fetch().to(
            "cpu", torch.float32, copy=True, memory_format=torch.contiguous_format
        )
        # One pass and no second tensor of this size; NaN comes through aminmax.
        lowest, highest = torch.aminmax(values)
        if not (torch.isfinite(lowest) and torch.isfinite(highest)):
            raise ValueError(f"{self} {_first_bad_value(values)}")
        return values


def _first_bad_value(values: Tensor) -> str:
    wrong = (~torch.isfinite(values)).nonzero()
    index = wrong[0].tolist()
    return (
        f"holds NaN or infinite values ({len(wrong)} of {values.numel()}, the first is "
        f"{values[tuple(index)].item()} at {index})"
    )
