"""Where an intervention acts: a token position of every prompt, and what it matches in new."""

from __future__ import annotations

from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.outside.dense_tensors import why_not_dense
from ioi_fast.outside.whole_numbers import whole_number


@dataclass(frozen=True, slots=True, eq=False)
class Position:
    """One position per prompt, or every position when `orig` is None.

    What stands at orig[n] of an original prompt is matched by new[n] of its new prompt; for every
    position, token t matches token t.
    """

    name: str
    orig: Tensor | None  # [N]
    new: Tensor | None  # [N]

    @property
    def everywhere(self) -> bool:
        """Whether it stands for all positions."""
        return self.orig is None

    def select(self, prompts: Tensor) -> Position:
        """The same position of some prompts."""
        if self.orig is None or self.new is None:
            return self
        return Position(self.name, self.orig[prompts], self.new[prompts])

    def where(self, tokens: Tensor, run: str = "orig") -> Tensor:
        """The cells it names in a run of [N, T] tokens, bool [N, T]."""
        chosen = self.orig if run == "orig" else self.new
        if chosen is None:
            return torch.ones(tokens.shape, dtype=torch.bool)
        return torch.arange(tokens.shape[1]) == chosen[:, None]

    def aligned(self, value_new: Tensor, T: int) -> Tensor:
        """New-run values [N, T', ...] moved to the matching original positions, [N, T, ...].

        Cells that the position does not name hold values that nobody reads.
        """
        if self.new is None:
            return value_new[:, :T]
        picked = value_new[torch.arange(len(self.new)), self.new]
        return picked[:, None].expand(-1, T, *picked.shape[1:])


def parse_position(value: object, pairs: PromptPairs, argument: str = "position") -> Position:
    """A position from a role, an int, a tensor or array [N] of ints, or None for all.

    Raises TypeError or ValueError naming the argument: an unknown role, a position outside the
    prompts, or one that is no role of prompts whose roles stand elsewhere in new.
    """
    if value is None:
        check_matches_by_token(pairs, f"{argument}: all positions match")
        return Position("all", None, None)
    if isinstance(value, str):
        return role_position(value, pairs, argument)
    if isinstance(value, Tensor) or (isinstance(value, numpy.ndarray) and value.ndim):
        tokens = _integers(value)
        if tokens is not None and tokens.shape == (len(pairs),):
            return _tokens(tokens, f"tokens[{len(pairs)}]", pairs, argument)
        came = why_not_dense(value) if isinstance(value, Tensor) else None
        came = came or f"{value.dtype} {list(value.shape)}"
    elif (token := whole_number(value)) is not None:
        _check_inside(token, pairs, argument)  # torch takes no integer beyond 64 bits
        return _tokens(torch.full((len(pairs),), token), str(token), pairs, argument)
    else:
        came = repr(value)
    raise TypeError(
        f"{argument} must be a role ({', '.join(pairs.roles)}), an int, a tensor or array "
        f"[{len(pairs)}] of ints or None, got {came}"
    )


def _integers(value: Tensor | numpy.ndarray) -> Tensor | None:
    """The values as int64 on the CPU, None unless they are integers."""
    if isinstance(value, numpy.ndarray):
        if value.dtype.kind == "u":  # beyond int64 it would come out negative
            value = value.clip(max=numpy.iinfo(numpy.int64).max)
        return torch.from_numpy(value.astype(numpy.int64)) if value.dtype.kind in "iu" else None
    if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
        return None
    if why_not_dense(value) is not None:
        return None
    return value.to("cpu", torch.int64)


def role_position(role: str, pairs: PromptPairs, argument: str) -> Position:
    """The position of a role; raises ValueError when the prompts have no such role."""
    if role not in pairs.positions:
        raise ValueError(
            f"{argument}: the prompts have no role {role!r}, only {', '.join(pairs.roles)}"
        )
    return Position(role, pairs.positions[role], pairs.new_roles[role])


def check_matches_by_token(pairs: PromptPairs, what: str) -> None:
    """Raises ValueError where a role stands elsewhere in new, so that token t of new is not what
    token t of orig is; `what` begins the message, as "position: all positions match"."""
    for role, at in pairs.positions.items():
        elsewhere = (at != pairs.new_roles[role]).nonzero().flatten()
        if len(elsewhere):
            prompt = int(elsewhere[0])
            stands = f"{int(at[prompt])} in orig and at {int(pairs.new_roles[role][prompt])} in new"
            raise ValueError(
                f"{what} token to token, but {role} of prompt {prompt} stands at {stands}; "
                "name a role"
            )


def _check_inside(token: int, pairs: PromptPairs, argument: str) -> None:
    last = pairs.orig.shape[1] - 1
    if not 0 <= token <= last:
        raise ValueError(f"{argument} must be from 0 to {last}, got {token}")


def _tokens(tokens: Tensor, name: str, pairs: PromptPairs, argument: str) -> Position:
    for token in tokens.tolist():
        _check_inside(token, pairs, argument)
    check_matches_by_token(pairs, f"{argument}: {name} matches")
    return Position(name, tokens, tokens)
