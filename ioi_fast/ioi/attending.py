"""What heads attend to, and whether they write what they attend to (paper section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ioi_fast.asked.nodes import Head, parse_node
from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.calls.attention import attention
from ioi_fast.ioi.walk import walk
from ioi_fast.model.gpt2 import GPT2
from ioi_fast.own_settings import own_settings


@dataclass(frozen=True, slots=True, eq=False)
class Attending:
    """Attention of heads from one role to others."""

    heads: tuple[Head, ...]
    query: str
    roles: tuple[str, ...]
    weights: Tensor  # [S, R, N]

    def mean(self, role: str) -> Tensor:
        """Mean over prompts of the attention to a role, [S]."""
        return self.weights[:, self.roles.index(role)].double().mean(-1)

    @property
    def stderr(self) -> Tensor:
        """Standard error of every mean, [S, R]."""
        return self.weights.double().std(-1) / self.weights.shape[-1] ** 0.5


@own_settings()
def attending(
    model: GPT2,
    pairs: PromptPairs,
    heads: Sequence[object],
    query: str = "END",
    run: str = "orig",
    after: dict | None = None,
    **running: object,
) -> Attending:
    """Attention of heads from a role to every role; with `after` (the arguments of a path_patch),
    in what that leaves.

    `run` is "orig" or "new", whose own positions of the roles are read; `running` goes to
    `attention`. Raises ValueError naming `query`, and as `attention` does.

    >>> attending(model, pairs, ["9.9", "10.0", "9.6"]).mean("IO")    # doctest: +SKIP
    """
    where = pairs.positions if run == "orig" else pairs.new_roles
    if query not in where:
        raise ValueError(f"query must be one of {', '.join(where)}, got {query!r}")
    patterns = attention(model, pairs, list(heads), run=run, after=after, **running)
    rows = torch.arange(len(pairs))
    from_query = patterns[:, rows, where[query]]  # [S, N, T]
    weights = torch.stack([from_query[:, rows, at] for at in where.values()], 1)
    found = tuple(parse_node(head, model.config, "heads") for head in heads)
    return Attending(found, query, tuple(where), weights)


@dataclass(frozen=True, slots=True, eq=False)
class Writing:
    """Of heads, attention to names and what is written along their unembeddings: 2·N points each.

    The first N points are of IO, the others of S, whose two mentions are added.
    """

    heads: tuple[Head, ...]
    probability: Tensor  # [S, 2·N]
    projection: Tensor  # [S, 2·N]

    @property
    def correlation(self) -> Tensor:
        """Pearson's correlation over both names' points, [S]; NaN where nothing varies."""
        return _correlation(self.probability.double(), self.projection.double())

    def stderr(self, draws: int = 300, seed: int = 0) -> Tensor:
        """Standard error of `correlation` by resamples of the prompts, whose points stay together,
        [S]."""
        N = self.probability.shape[-1] // 2
        generator = torch.Generator().manual_seed(seed)
        found = []
        for _ in range(draws):
            chosen = torch.randint(N, (N,), generator=generator)
            points = torch.cat([chosen, chosen + N])
            parts = (one[:, points].double() for one in (self.probability, self.projection))
            found.append(_correlation(*parts))
        return torch.stack(found).std(0)


def _correlation(x: Tensor, y: Tensor) -> Tensor:
    """Pearson's, over the last dimension."""
    x, y = x - x.mean(-1, keepdim=True), y - y.mean(-1, keepdim=True)
    return (x * y).sum(-1) / (x.norm(dim=-1) * y.norm(dim=-1))


@own_settings()
def writing(model: GPT2, pairs: PromptPairs, heads: Sequence[object]) -> Writing:
    """⟨what a head writes at END, W_U[name]⟩ against its attention to the name there.

    Weights are folded and centred, b_V is in the values, no LayerNorm is applied. The prompts need
    the roles IO, S1 and S2. Raises ValueError naming what is missing. Source: Wang et al. 2022,
    section 3.1 and figure 3c.

    >>> writing(model, pairs, ["9.9", "10.0", "9.6"]).correlation    # doctest: +SKIP
    """
    missing = [role for role in ("IO", "S1", "S2") if role not in pairs.positions]
    if missing:
        raise ValueError(f"pairs must have the roles IO, S1 and S2, got no {missing[0]}")
    asked = tuple(parse_node(head, model.config, "heads") for head in heads)
    if not asked or not all(isinstance(head, Head) for head in asked):
        raise ValueError(f"heads must be heads like '9.9', at least one, got {list(heads)!r}")
    S, N = len(asked), len(pairs)
    probability, projection = (torch.empty(S, 2, N, dtype=torch.float32) for _ in range(2))
    names = torch.stack([pairs.answers, pairs.wrong_answers])  # [2, N]
    last = max(head.layer for head in asked)
    for walked in walk(model.folded(), pairs.orig, last + 1):
        here = [row for row, head in enumerate(asked) if head.layer == walked.layer]
        if not here:
            continue
        some = walked.prompts
        rows, end = torch.arange(len(pairs.end[some])), pairs.end[some]
        written_NHD = walked.written(walked.z[rows, end])
        weights_NHT = walked.pattern[rows, :, end]
        directions_2ND = walked.model.weights.unembed[names[:, some]]
        at = {role: pairs.positions[role][some] for role in ("IO", "S1", "S2")}
        for row in here:
            own = weights_NHT[:, asked[row].head]
            probability[row, 0, some] = own[rows, at["IO"]]
            probability[row, 1, some] = own[rows, at["S1"]] + own[rows, at["S2"]]
            projection[row, :, some] = (directions_2ND * written_NHD[:, asked[row].head]).sum(-1)
    return Writing(asked, probability.flatten(1), projection.flatten(1))
