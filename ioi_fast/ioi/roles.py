"""Roles beside the named ones, as END-1: a token that stands at a distance from a role."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from torch import Tensor

from ioi_fast.asked.prompts import PromptPairs


class NeedsRoles(ValueError):
    """A role is asked for that prompts neither have nor have a token at a distance from."""


_DISTANT = re.compile(r"(?P<role>.+?)(?P<distance>[+-][1-9][0-9]*)")


def with_roles(pairs: PromptPairs, roles: Iterable[str]) -> PromptPairs:
    """The same prompts with every role that is asked for; END-1 is the token before END.

    Raises NeedsRoles, a ValueError, for a role that is neither there nor at a distance from one
    that is, and ValueError for one that would stand outside a prompt.

    >>> with_roles(pairs, ["END-1"]).positions["END-1"]    # doctest: +SKIP
    """
    missing = [role for role in dict.fromkeys(roles) if role not in pairs.positions]
    if not missing:
        return pairs
    orig, new = dict(pairs.positions), dict(pairs.new_roles)
    for role in missing:
        orig[role] = _place(role, pairs.positions, pairs.end)
        new[role] = _place(role, pairs.new_roles, pairs.new_end)
    own = pairs.new_positions is not None
    return replace(pairs, positions=orig, new_positions=new if own else None)


def is_distant(role: str) -> bool:
    """Whether a role is named by its distance from another, as END-1 and S1+1 are."""
    return _DISTANT.fullmatch(role) is not None


def distant(role: str, distance: int) -> str:
    """The name of the token at a distance from a role."""
    return f"{role}{distance:+d}" if distance else role


def _place(role: str, positions: dict[str, Tensor], end: Tensor) -> Tensor:
    parts = _DISTANT.fullmatch(role)
    if parts is None or parts["role"] not in positions:
        raise NeedsRoles(
            f"the prompts have no role {role!r}, only {', '.join(positions)}, and tokens at a "
            "distance from them, such as END-1"
        )
    at = positions[parts["role"]] + int(parts["distance"])
    outside = (at < 0) | (at > end)
    if bool(outside.any()):
        prompt = int(outside.nonzero()[0])
        raise ValueError(
            f"{role} must stand within each prompt, from 0 to {int(end[prompt])} in prompt "
            f"{prompt}, got {int(at[prompt])}"
        )
    return at
