"""Where heads read: the tokens that take most of their attention, as roles or beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from ioi_fast.asked.nodes import Head
from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.calls.attention import attention
from ioi_fast.ioi.roles import distant
from ioi_fast.model.gpt2 import GPT2
from ioi_fast.own_settings import own_settings

LEAST = 0.1  # mean attention that makes a token one that is read
_FARTHEST = 3  # tokens from a role
_MOST = 4  # tokens of a head
_EQUAL = 0.02  # by which an unnamed token has to be read more than a named one


@own_settings()
def places_read(
    model: GPT2,
    pairs: PromptPairs,
    heads: Sequence[Head],
    query: str,
    named: Sequence[str],
    after: Mapping | None = None,
    **running: object,
) -> dict[Head, tuple[str, ...]]:
    """Of each head the roles that it attends to from a role, the most attended first.

    A token without a role is named by its distance from one of `named`, as END-1. A place counts
    with a mean attention of at least 0.1 over prompts, where no place before it has the same token.
    The first token of a prompt, where heads rest that have nothing to read, counts as a named role
    alone. `after` and `running` go to `attention`.

    >>> places_read(model, pairs, [Head(9, 9)], "END", pairs.roles)    # doctest: +SKIP
    {Head(layer=9, head=9): ('IO',)}
    """
    patterns = attention(model, pairs, list(heads), after=after, **running)
    rows = torch.arange(len(pairs))
    from_query_SNT = patterns[:, rows, pairs.positions[query]]
    places = list(_places(pairs, query, named))
    return {
        head: _covered(weights_NT, places)
        for head, weights_NT in zip(heads, from_query_SNT, strict=True)
    }


def _places(
    pairs: PromptPairs, query: str, named: Sequence[str]
) -> Iterator[tuple[str, Tensor, bool]]:
    """(name, tokens [N], whether it is a role) that the query sees in every prompt, roles first."""
    until = pairs.positions[query]
    distances = sorted(range(-_FARTHEST, _FARTHEST + 1), key=abs)
    seen: list[Tensor] = []
    for distance in distances:
        for role in named:
            at = pairs.positions[role] + distance
            new = pairs.new_roles[role] + distance
            outside = (at < 0) | (at > until) | (new < 0) | (new > pairs.new_end)
            known = any(torch.equal(at, one) for one in seen)
            if not bool(outside.any()) and not known:
                seen.append(at)
                yield distant(role, distance), at, distance == 0


def _covered(weights_NT: Tensor, places: Sequence[tuple[str, Tensor, bool]]) -> tuple[str, ...]:
    """Greedy: the place with most of the attention, then with most of what is left of it."""
    left_NT = weights_NT.double().clone()
    rows = torch.arange(len(left_NT))
    found: list[str] = []
    while len(found) < _MOST:
        means = []
        for _, at, is_role in places:
            own = left_NT[rows, at]
            means.append(float((own if is_role else own.where(at > 0, 0)).mean()))
        most = max(means)
        if most < LEAST:
            break
        best = next(index for index, mean in enumerate(means) if mean >= most - _EQUAL)
        name, at, _ = places[best]
        found.append(name)
        left_NT[rows, at] = 0
    return tuple(found)
