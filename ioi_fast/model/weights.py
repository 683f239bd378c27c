"""GPT-2's weights by name, and what a model takes as such.

Weights lie as GPT-2 files have them (Conv1D: [in, out]); letters of shapes as in model.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from operator import attrgetter

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Block:
    """Weights of one layer."""

    ln_1_gain: Tensor  # [D]
    ln_1_bias: Tensor  # [D]
    w_qkv: Tensor  # [D, 3·H·K]: q, k, v side by side, each by head
    b_qkv: Tensor  # [3·H·K]
    w_o: Tensor  # [H·K, D]
    b_o: Tensor  # [D]
    ln_2_gain: Tensor  # [D]
    ln_2_bias: Tensor  # [D]
    w_in: Tensor  # [D, F]
    b_in: Tensor  # [F]
    w_out: Tensor  # [F, D]
    b_out: Tensor  # [D]


_of_block = attrgetter(*(f.name for f in fields(Block)))


@dataclass(frozen=True, slots=True)
class Weights:
    """All weights of a GPT-2; with a tied head, `unembed` is `wte` itself."""

    wte: Tensor  # [V, D]
    wpe: Tensor  # [n_positions, D]
    blocks: tuple[Block, ...]
    ln_f_gain: Tensor  # [D]
    ln_f_bias: Tensor  # [D]
    unembed: Tensor  # [V, D]

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", tuple(self.blocks))

    def to(self, device: torch.device | str | None, dtype: torch.dtype | None) -> Weights:
        """A copy on another device or in another precision; a tied head stays tied."""
        return self.each(lambda tensor: tensor.to(device=device, dtype=dtype))

    def each(self, change: Callable[[Tensor], Tensor]) -> Weights:
        """Every tensor changed, once each; a tied head stays tied."""
        wte = change(self.wte)
        return Weights(
            wte=wte,
            wpe=change(self.wpe),
            blocks=tuple(Block(*map(change, _of_block(block))) for block in self.blocks),
            ln_f_gain=change(self.ln_f_gain),
            ln_f_bias=change(self.ln_f_bias),
            unembed=wte if self.unembed is self.wte else change(self.unembed),
        )

    def named(self) -> dict[str, Tensor]:
        """Every distinct tensor by its name here, in a fixed order."""
        found = {name: getattr(self, name) for name in ("wte", "wpe", "ln_f_gain", "ln_f_bias")}
        for layer, block in enumerate(self.blocks):
            names = (f"blocks[{layer}].{f.name}" for f in fields(Block))
            found |= zip(names, _of_block(block), strict=True)
        return found if self.unembed is self.wte else {**found, "unembed": self.unembed}

    def tensors(self) -> list[Tensor]:
        """Every distinct tensor, in the same order."""
        found = [self.wte, self.wpe, self.ln_f_gain, self.ln_f_bias]
        for block in self.blocks:
            found += _of_block(block)
        return found if self.unembed is self.wte else [*found, self.unembed]


def check_weights(weights: Weights) -> None:
    """Raises TypeError or ValueError naming a tensor that no model can run on: one that is none, is
    sparse, quantised or on "meta", holds no floats, or differs from wte in type or device."""
    if not isinstance(weights, Weights):
        raise TypeError(f"weights must be Weights, got {type(weights).__name__}")
    for name, tensor in weights.named().items():
        problem = _why_not(tensor)
        if problem is None and tensor.dtype != weights.wte.dtype:
            problem = f"of the type of wte, {weights.wte.dtype}, got {tensor.dtype}"
        if problem is not None:
            raise TypeError(f"weights: {name} must be {problem}")
        if tensor.device != weights.wte.device:
            wanted = f"on the device of wte, {weights.wte.device}, got {tensor.device}"
            raise ValueError(f"weights: {name} must be {wanted}")


def _why_not(tensor: object) -> str | None:
    """What a tensor would have to be and what it is, or None where a model can run on it."""
    if not isinstance(tensor, Tensor):
        return f"a tensor, got {type(tensor).__name__}"
    if tensor.is_quantized or tensor.layout != torch.strided:
        kind = "quantised" if tensor.is_quantized else str(tensor.layout)
        return f"a dense tensor, got one that is {kind}"
    if tensor.is_meta:
        return "a tensor with values, got one on the device 'meta'"
    return None if tensor.is_floating_point() else f"of floats, got {tensor.dtype}"


def without_gradients(weights: Weights) -> Weights:
    """The same memory and counters of changes, as tensors that ask for no gradient."""
    if not any(tensor.requires_grad for tensor in weights.tensors()):
        return weights
    return weights.each(lambda tensor: tensor.detach() if tensor.requires_grad else tensor)
