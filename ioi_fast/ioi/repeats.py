"""Random tokens said twice: which heads look at the token before, at the same token, or behind it,
and which copy what came next (paper appendix)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ioi_fast.asked.nodes import Head
from ioi_fast.ioi.walk import walk
from ioi_fast.model.gpt2 import GPT2
from ioi_fast.own_settings import own_settings


@dataclass(frozen=True, slots=True, eq=False)
class RepeatScores:
    """Mean attention along three diagonals, and copying, of every head [L, H]."""

    previous: Tensor  # to the token before
    duplicate: Tensor  # of the second half, to the same token of the first
    induction: Tensor  # of the second half, to what came after it there
    copying: Tensor  # ⟨what is written in the second half, W_U[what came next]⟩

    def ranking(self, score: str) -> list[Head]:
        """Heads from the largest score on, of copying by its size."""
        values = getattr(self, score)
        order = (values.abs() if score == "copying" else values).flatten().argsort(descending=True)
        H = values.shape[1]
        return [Head(place // H, place % H) for place in order.tolist()]


def repeated_tokens(
    model: GPT2,
    sequences: int = 16,
    length: int = 100,
    seed: int = 0,
    ids: tuple[int, int] | None = None,
) -> Tensor:
    """Tokens [sequences, 2·length]: random ids from ids[0] to ids[1]−1 (default: all), said twice.

    The released code draws from 1000 to 9999. Raises ValueError naming the argument.
    """
    low, high = (0, model.config.vocab_size) if ids is None else ids
    if not 0 <= low < high <= model.config.vocab_size:
        raise ValueError(f"ids must be within 0 and {model.config.vocab_size}, got {ids!r}")
    if sequences < 1:
        raise ValueError(f"sequences must be at least 1, got {sequences}")
    if not 2 <= length <= model.config.n_positions // 2:
        most = model.config.n_positions // 2
        raise ValueError(f"length must be from 2 to {most}, half of the positions, got {length}")
    generator = torch.Generator().manual_seed(seed)
    once = torch.randint(low, high, (sequences, length), generator=generator)
    return torch.cat([once, once], 1)


@own_settings()
def repeat_scores(model: GPT2, tokens: Tensor, diagonal: str = "exact") -> RepeatScores:
    """Scores of every head on tokens [N, 2·X] whose halves are equal.

    Of induction "exact" averages the X queries of the second half; "code" is the whole diagonal of
    X + 1 entries, as released. Weights of copying are folded and centred. Raises ValueError naming
    the argument.

    >>> repeat_scores(model, repeated_tokens(model)).ranking("induction")[:5]    # doctest: +SKIP
    """
    if diagonal not in ("exact", "code"):
        raise ValueError(f"diagonal must be 'exact' or 'code', got {diagonal!r}")
    X = tokens.shape[-1] // 2
    if tokens.dim() != 2 or not torch.equal(tokens[:, :X], tokens[:, X:]):
        raise ValueError("tokens must be [N, 2·X] with two equal halves")
    config, N = model.config, len(tokens)
    sums = torch.zeros(4, config.n_layer, config.n_head, dtype=torch.float64)
    first = X if diagonal == "exact" else X - 1
    for walked in walk(model.folded(), tokens):
        pattern_NHTT = walked.pattern.double()
        layer = walked.layer
        sums[0, layer] += pattern_NHTT.diagonal(-1, 2, 3).mean(-1).sum(0)
        sums[1, layer] += pattern_NHTT.diagonal(-X, 2, 3).mean(-1).sum(0)
        behind = pattern_NHTT.diagonal(1 - X, 2, 3)  # queries X − 1 to 2·X − 1
        sums[2, layer] += behind[..., first - (X - 1) :].mean(-1).sum(0)
        next_ND = walked.model.weights.unembed[tokens[walked.prompts, 1 : X + 1]]
        written_NXHD = walked.written(walked.z[:, X:])
        copied = torch.einsum("nxhd,nxd->nxh", written_NXHD, next_ND)
        sums[3, layer] += copied.double().mean(1).sum(0)
    previous, duplicate, induction, copying = (sums / N).float()
    return RepeatScores(previous, duplicate, induction, copying)
