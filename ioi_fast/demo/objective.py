"""What the bundled model is trained for, and how its steps are sized."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

LOCAL_LAYERS = 3  # layers whose heads are charged for looking further back than WINDOW tokens
WINDOW = 6


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up over the first 5 %, then a cosine down to 2 % of the peak."""
    warm_up = max(1, steps // 20)
    if step < warm_up:
        return peak * (step + 1) / warm_up
    done = (step - warm_up) / max(1, steps - warm_up)
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


def weighted_loss(logits: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of the cross-entropy of predicting ids[:, t] at t - 1."""
    losses = nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
    )
    wanted = weights[:, 1:].flatten()
    return (losses * wanted).sum() / wanted.sum()


def far_attention(patterns: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Mean attention that the first layers pay to tokens more than WINDOW back.

    patterns: a layer each, [B, H, T, T]; queries behind the last weighted token do not count. It is
    charged for in training, because a small model otherwise gathers all names at once in its first
    layer and leaves nothing to compose.
    """
    width = weights.shape[1]
    at = torch.arange(width)
    far = (at[:, None] - at[None, :] > WINDOW).to(patterns[0])
    # From the first weighted token to the last: what stands between is real text.
    real = weights.flip(1).cumsum(1).flip(1) > 0
    mass = torch.stack([(pattern * far).sum(-1).mean(1) for pattern in patterns[:LOCAL_LAYERS]])
    return (mass * real).sum() / (real.sum() * LOCAL_LAYERS)


def optimizer_of(model: nn.Module, peak: float) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    groups = [
        {"params": matrices, "weight_decay": 0.05},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.98), fused=True)
