"""What every call checks first, and the model that the reference backend runs."""

from __future__ import annotations

import torch

from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.calls.choose_backend import Choice
from ioi_fast.model.gpt2 import GPT2


def check_inputs(model: GPT2, pairs: PromptPairs, argument: str = "pairs") -> None:
    """Raises TypeError or ValueError unless model and prompts are such and fit each other."""
    if not isinstance(model, GPT2):
        raise TypeError(
            f"model must be an ioi_fast.GPT2 (ioi_fast.load makes one), got {type(model).__name__}"
        )
    if not isinstance(pairs, PromptPairs):
        raise TypeError(f"{argument} must be PromptPairs, got {type(pairs).__name__}")
    model.check_finite()
    pairs.check_vocabulary(model.config.vocab_size, argument)
    pairs.check_text(model.config.eos_token_id, argument)
    for name, tokens in (("orig", pairs.orig), ("new", pairs.new)):
        if tokens.shape[1] > model.config.n_positions:
            raise ValueError(
                f"{argument}.{name} has {tokens.shape[1]} tokens, the model takes at most "
                f"{model.config.n_positions}"
            )


def exact_model(model: GPT2, choice: Choice) -> GPT2:
    """The model on the CPU, in the precision in which the reference runs."""
    exact = torch.float64 if choice.precision == "fp64" else torch.float32
    return model.to(device="cpu", dtype=exact)
