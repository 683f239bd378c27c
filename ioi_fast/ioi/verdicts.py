"""Measured figures beside published ones: verdicts, which hold for GPT-2 small alone."""

from __future__ import annotations

from ioi_fast.model.config import GPT2Config
from ioi_fast.model.gpt2 import GPT2

AGREES, DIFFERS, NOT_APPLICABLE = "agrees", "differs", "not applicable to this model"
OWN_WORDING = " (own wording)"
_NAMES = ("gpt2", "openai-community/gpt2")


def is_gpt2_small(model: GPT2) -> bool:
    """Whether a model is GPT-2 small by name and shapes: no other can be held to its figures."""
    return model.name in _NAMES and _shapes(model.config) == _shapes(GPT2Config())


def _shapes(config: GPT2Config) -> tuple[int, ...]:
    return (config.n_layer, config.n_head, config.n_embd, config.d_mlp, config.vocab_size)


def agrees_with(measured: float, published: float, tolerance: float, applicable: bool) -> str:
    """The verdict on a figure; NaN differs from everything."""
    return verdict(abs(measured - published) <= tolerance, applicable)


def verdict(met: bool, applicable: bool) -> str:
    """The verdict on whether a published figure is met, where it can be asked."""
    if not applicable:
        return NOT_APPLICABLE
    return AGREES if met else DIFFERS
