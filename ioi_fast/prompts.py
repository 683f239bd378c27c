"""Prompt pairs: what every intervention is made on. Original prompts, paired new prompts, answers
and named positions.

Invariant: a pair ends at END. Tokens are cut behind the last END of the batch, every named position
lies inside its prompt, and what stands behind a prompt's own END is padding that never changes a
result (attention is causal and everything is read at END).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

Integers = Tensor | numpy.ndarray | Sequence
END = "END"
# Words that stand for positions where a role could stand.
NO_ROLES = ("", "all", "each")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class PromptPairs:
    """N original prompts, the N new prompts patched into them, their answers and named positions.

    orig [N, T] and new [N, T'] are token ids; answers and wrong_answers [N] are the two ids whose
    logits at END are compared; positions maps a role to token positions [N] and must hold "END".
    Without new_positions the new prompts have the same positions and token t of new goes to token t
    of orig; with them (same roles) role r of new goes to role r of orig, and lengths may differ.
    forms [N] are template ids, where known. Lists, arrays and tensors of integers are taken; all is
    copied, as int64 on the CPU. T becomes max(END) + 1, T' likewise.

    Raises TypeError or ValueError naming the argument, what was expected and what came.

    Example:
        >>> pairs = PromptPairs([[5, 3, 9]], [[5, 4, 9]], [3], [4], positions={"END": [2]})
        >>> len(pairs), pairs.end
        (1, tensor([2]))
    """

    orig: Tensor
    new: Tensor
    answers: Tensor
    wrong_answers: Tensor
    positions: dict[str, Tensor]
    forms: Tensor | None = None
    new_positions: dict[str, Tensor] | None = None
    direction: str = "noising"  # a label for results: new is patched into orig

    def __post_init__(self) -> None:
        orig, new = (_tokens(name, getattr(self, name)) for name in ("orig", "new"))
        n = len(orig)
        if len(new) != n:
            raise ValueError(f"new must have as many prompts as orig ({n}), got {len(new)}")
        if self.direction not in ("noising", "denoising"):
            raise ValueError(f'direction must be "noising" or "denoising", got {self.direction!r}')
        positions = _roles("positions", self.positions, n, orig.shape[1])
        new_positions = None
        if self.new_positions is not None:
            new_positions = _roles("new_positions", self.new_positions, n, new.shape[1])
            new_positions = _same_roles(positions, new_positions)
        width = int(positions[END].max()) + 1
        new_width = width if new_positions is None else int(new_positions[END].max()) + 1
        if new.shape[1] < new_width:
            raise ValueError(
                f"new must have at least {new_width} tokens to reach END, got {new.shape[1]} "
                "(give new_positions if its prompts are shorter)"
            )
        new_end = (positions if new_positions is None else new_positions)[END]
        fields = {
            "orig": _ended("orig", orig[:, :width], positions[END]),
            "new": _ended("new", new[:, :new_width], new_end),
            "answers": _ids("answers", self.answers, n),
            "wrong_answers": _ids("wrong_answers", self.wrong_answers, n),
            "positions": positions,
            "forms": None if self.forms is None else _ids("forms", self.forms, n),
            "new_positions": new_positions,
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.orig)

    @property
    def roles(self) -> tuple[str, ...]:
        """Names of the positions, in the order given."""
        return tuple(self.positions)

    @property
    def new_roles(self) -> dict[str, Tensor]:
        """Role -> positions [N] in the new prompts."""
        return self.positions if self.new_positions is None else self.new_positions

    @property
    def end(self) -> Tensor:
        """END of each original prompt, [N]."""
        return self.positions[END]

    @property
    def new_end(self) -> Tensor:
        """END of each new prompt, [N]."""
        return self.new_roles[END]

    def swapped(self) -> PromptPairs:
        """orig and new exchanged, positions with them, answers kept: noising to denoising."""
        return PromptPairs(
            self.new,
            self.orig,
            self.answers,
            self.wrong_answers,
            positions=self.new_roles,
            forms=self.forms,
            new_positions=None if self.new_positions is None else self.positions,
            direction="denoising" if self.direction == "noising" else "noising",
        )

    def select(self, which: slice | Integers) -> PromptPairs:
        """The pairs at some indices or in a slice; IndexError outside, ValueError for none."""
        if not isinstance(which, slice):
            which = _integers("which", which)
            if which.dim() != 1 or len(which) == 0:
                raise ValueError(
                    f"which must be a slice or indices [n], at least one, got {list(which.shape)}"
                )
            if int(which.min()) < -len(self) or int(which.max()) >= len(self):
                raise IndexError(f"which must be below {len(self)} prompts, got {which.tolist()}")
        elif len(range(*which.indices(len(self)))) == 0:
            raise ValueError(f"which must choose at least one of {len(self)} prompts, got {which}")

        def rows(roles: dict[str, Tensor]) -> dict[str, Tensor]:
            return {role: at[which] for role, at in roles.items()}

        return PromptPairs(
            self.orig[which],
            self.new[which],
            self.answers[which],
            self.wrong_answers[which],
            positions=rows(self.positions),
            forms=None if self.forms is None else self.forms[which],
            new_positions=None if self.new_positions is None else rows(self.new_positions),
            direction=self.direction,
        )

    def check_vocabulary(self, vocab_size: int, argument: str = "pairs") -> None:
        """Raise ValueError naming the first id that a vocabulary of this size lacks.

        Such an id behind END is no error: it becomes 0, so that embeddings can be looked up.
        """
        ends = {"orig": self.end, "new": self.new_end}
        for name in ("orig", "new", "answers", "wrong_answers"):
            ids = getattr(self, name)
            outside = ids >= vocab_size
            behind = _behind(ids, ends[name]) if name in ends else torch.zeros_like(outside)
            wrong = (outside & ~behind).nonzero()
            if len(wrong):
                at = wrong[0].tolist()
                raise ValueError(
                    f"{argument}.{name} must hold ids below {vocab_size} (the vocabulary), got "
                    f"{int(ids[tuple(at)])} in prompt {at[0]}"
                    + (f" at position {at[1]}" if len(at) > 1 else "")
                )
            if outside.any():
                object.__setattr__(self, name, ids.masked_fill(outside, 0))

    def token_hash(self) -> str:
        """Hex SHA-256 of tokens up to each END, answers, positions and forms, without padding."""
        digest = hashlib.sha256()
        for tokens, end in ((self.orig, self.end), (self.new, self.new_end)):
            for row, last in zip(tokens, end.tolist(), strict=True):
                digest.update(numpy.int64(last + 1).tobytes() + row[: last + 1].numpy().tobytes())
        digest.update(self.answers.numpy().tobytes() + self.wrong_answers.numpy().tobytes())
        for roles in (self.positions, self.new_roles):
            for role in sorted(roles):
                digest.update(role.encode() + b"\0" + roles[role].numpy().tobytes())
        if self.forms is not None:
            digest.update(b"forms\0" + self.forms.numpy().tobytes())
        return digest.hexdigest()

    def __repr__(self) -> str:
        widths = f"T={self.orig.shape[1]}"
        if self.new.shape != self.orig.shape:
            widths += f", new T={self.new.shape[1]}"
        return f"PromptPairs(N={len(self)}, {widths}, roles={', '.join(self.roles)})"


def _integers(name: str, value: Integers) -> Tensor:
    """A contiguous int64 copy on the CPU; TypeError unless the value holds integers."""
    if isinstance(value, (list, tuple)) and not value:
        # Torch takes an empty list for floats.
        return torch.zeros(0, dtype=torch.int64, device="cpu")
    if isinstance(value, numpy.ndarray):
        value = numpy.array(value, order="C")  # torch takes no reversed views
    try:
        given = value.detach() if isinstance(value, Tensor) else torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        came = type(value).__name__
        raise TypeError(
            f"{name} must hold integers of one shape, got a {came} that does not ({error})"
        ) from error
    if given.layout != torch.strided:
        raise TypeError(f"{name} must hold integers in a dense tensor, got {given.layout}")
    if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
        kind = str(given.dtype).removeprefix("torch.")
        raise TypeError(f"{name} must hold integers, got {kind} of shape {list(given.shape)}")
    if _has_bool(value):  # torch takes True among integers for 1
        raise TypeError(f"{name} must hold integers, got a bool among them")
    return given.to("cpu", torch.int64, copy=True).contiguous()


def _has_bool(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_has_bool, value))
    return isinstance(value, bool)


def _tokens(name: str, value: Integers) -> Tensor:
    if isinstance(value, (list, tuple)) and not value:
        raise ValueError(f"{name} must hold at least one prompt, got none")
    tokens = _integers(name, value)
    if tokens.dim() != 2 or tokens.shape[0] < 1 or tokens.shape[1] < 1:
        raise ValueError(
            f"{name} must have shape [prompts, tokens], both at least 1, got {list(tokens.shape)}"
        )
    return tokens


def _behind(tokens: Tensor, end: Tensor) -> Tensor:
    """What stands behind END, bool [N, T]."""
    return torch.arange(tokens.shape[1], device=end.device) > end[:, None]


def _ended(name: str, tokens: Tensor, end: Tensor) -> Tensor:
    """Tokens whose ids up to END are checked; negative padding, which no model takes, is 0."""
    behind = _behind(tokens, end)
    _check_not_negative(name, tokens.masked_fill(behind, 0))
    return torch.where(behind, tokens.clamp(min=0), tokens).contiguous()


def _ids(name: str, value: Integers, n: int) -> Tensor:
    ids = _integers(name, value)
    if ids.shape != (n,):
        raise ValueError(
            f"{name} must have one entry for each of {n} prompts, got shape {list(ids.shape)}"
        )
    _check_not_negative(name, ids)
    return ids


def _check_not_negative(name: str, ids: Tensor) -> None:
    if int(ids.min()) < 0:
        row = int((ids < 0).nonzero()[0, 0])
        what = "positions" if name.endswith("]") else "ids"
        least = int(ids.min())
        raise ValueError(f"{name} must hold {what} of at least 0, got {least} (prompt {row})")


def _roles(name: str, value: Mapping[str, Integers], n: int, tokens: int) -> dict[str, Tensor]:
    """Positions by role, each in 0..END of its own prompt."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a dict of role -> positions, got {type(value).__name__}")
    if END not in value:
        raise ValueError(f'{name} must hold "END", got {sorted(map(str, value))}')
    roles: dict[str, Tensor] = {}
    for role, at in value.items():
        if not isinstance(role, str):
            raise TypeError(f"{name} must have strings as roles, got {role!r}")
        if role in NO_ROLES:
            raise ValueError(f"{name}: {role!r} can't be a role, it has a meaning of its own")
        roles[role] = _ids(f'{name}["{role}"]', at, n)
    end = roles[END]
    if int(end.max()) >= tokens:
        row = int(end.argmax())
        raise ValueError(
            f'{name}["END"] must lie inside its prompt of {tokens} tokens, got {int(end[row])} '
            f"(prompt {row})"
        )
    for role, at in roles.items():
        if bool((at > end).any()):
            row = int((at > end).nonzero()[0, 0])
            raise ValueError(
                f'{name}["{role}"] must not lie behind END, got {int(at[row])} in prompt {row} '
                f"whose END is {int(end[row])}"
            )
    return roles


def _same_roles(positions: dict[str, Tensor], new: dict[str, Tensor]) -> dict[str, Tensor]:
    """new in the order of positions; ValueError unless both name the same roles."""
    if set(new) != set(positions):
        raise ValueError(
            f"new_positions must name the roles of positions {sorted(positions)}, got {sorted(new)}"
        )
    return {role: new[role] for role in positions}
