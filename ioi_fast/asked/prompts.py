"""Prompt pairs: what every intervention is made on. Original prompts, paired new prompts, answers
and named positions.

Invariant: a pair ends at END. Tokens are cut behind the last END of the batch, every named position
lies inside its prompt, and what stands behind a prompt's own END is padding that never changes a
result (attention is causal and everything is read at END).
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

from ioi_fast.asked.left_padding import GPT2_EOS, check_not_padded_in_front
from ioi_fast.asked.pairs_arguments import (
    END,
    Integers,
    behind_end,
    checked_to_end,
    read_extra,
    read_ids,
    read_integers,
    read_positions,
    read_tokens,
    same_roles,
)
from ioi_fast.asked.right_padding import check_not_read_at_padding
from ioi_fast.outside.quoting import cut
from ioi_fast.own_settings import own_settings


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class PromptPairs:
    """N original prompts, the N new prompts patched into them, their answers and named positions.

    orig [N, T] and new [N, T'] are token ids; answers and wrong_answers [N] are the two ids whose
    logits at END are compared; positions maps a role to token positions [N] and must hold "END".
    Without new_positions T' is T, the new prompts have the same positions and token t of new goes
    to token t of orig; with them (same roles) role r of new goes to role r of orig, and lengths may
    differ. Padding stands behind END, never in front of a prompt. forms [N] are template ids, where
    known. extra {name: [N, …]} is what a metric of your own reads beside the logits, prompt by
    prompt. Lists, arrays and dense tensors are taken; all is copied to the CPU, integers as int64.
    T becomes max(END) + 1, T' likewise.

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
    extra: dict[str, Tensor] | None = None

    @own_settings()
    def __post_init__(self) -> None:
        orig, new = (read_tokens(name, getattr(self, name)) for name in ("orig", "new"))
        n = len(orig)
        if len(new) != n:
            raise ValueError(f"new must have as many prompts as orig ({n}), got {len(new)}")
        if self.direction not in ("noising", "denoising"):
            raise ValueError(f'direction must be "noising" or "denoising", got {self.direction!r}')
        positions = read_positions("positions", self.positions, n, orig.shape[1])
        new_positions = None
        if self.new_positions is not None:
            new_positions = read_positions("new_positions", self.new_positions, n, new.shape[1])
            new_positions = same_roles(positions, new_positions)
        elif new.shape[1] != orig.shape[1]:
            raise ValueError(
                f"new must be as wide as orig ({orig.shape[1]} tokens), since token t of new goes "
                f"to token t of orig, got {new.shape[1]} tokens; where its prompts have another "
                "length give new_positions, its roles' positions"
            )
        roles = positions if new_positions is None else new_positions
        orig, new = _ended("orig", orig, positions[END]), _ended("new", new, roles[END])
        _check_padding({"orig": (orig, positions[END]), "new": (new, roles[END])}, GPT2_EOS)
        fields = {
            "orig": orig,
            "new": new,
            "answers": read_ids("answers", self.answers, n),
            "wrong_answers": read_ids("wrong_answers", self.wrong_answers, n),
            "positions": positions,
            "forms": None if self.forms is None else read_ids("forms", self.forms, n),
            "new_positions": new_positions,
            "extra": read_extra(self.extra, n),
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
        """orig and new exchanged, positions with them, all else kept: noising to denoising."""
        return self._changed(
            orig=self.new,
            new=self.orig,
            positions=self.new_roles,
            new_positions=None if self.new_positions is None else self.positions,
            direction="denoising" if self.direction == "noising" else "noising",
        )

    @own_settings()
    def select(self, which: slice | Integers) -> PromptPairs:
        """The pairs at some indices or in a slice; IndexError outside, ValueError for none."""
        if not isinstance(which, slice):
            which = read_integers("which", which)
            if which.dim() != 1 or len(which) == 0:
                raise ValueError(
                    f"which must be a slice or indices [n], at least one, got {list(which.shape)}"
                )
            if int(which.min()) < -len(self) or int(which.max()) >= len(self):
                raise IndexError(f"which must be below {len(self)} prompts, got {which.tolist()}")
        elif len(range(*which.indices(len(self)))) == 0:
            raise ValueError(f"which must choose at least one of {len(self)} prompts, got {which}")
        chosen = torch.arange(len(self), device="cpu")[which]

        def rows(value: object) -> object:
            if isinstance(value, dict):
                return {name: rows(of_prompts) for name, of_prompts in value.items()}
            return value[chosen] if isinstance(value, Tensor) else value

        fields = {field.name: rows(getattr(self, field.name)) for field in dataclasses.fields(self)}
        new_roles = fields["new_positions"] or fields["positions"]
        for name, roles in (("orig", fields["positions"]), ("new", new_roles)):
            width = int(roles[END].max()) + 1
            fields[name] = fields[name][:, :width].contiguous()
        return self._changed(**fields)

    def without_extra(self) -> PromptPairs:
        """The same without what only metrics read."""
        return self if self.extra is None else self._changed(extra=None)

    def _changed(self, **fields: object) -> PromptPairs:
        """The same with other fields, made from fields that are checked and nobody else's."""
        changed = object.__new__(PromptPairs)
        for field in dataclasses.fields(self):
            value = fields[field.name] if field.name in fields else getattr(self, field.name)
            object.__setattr__(changed, field.name, value)
        return changed

    def check_text(self, eos: int | None, argument: str = "pairs") -> None:
        """Raise ValueError naming a prompt that this end of text pads in front or up to END."""
        orig, new = (self.orig, self.end), (self.new, self.new_end)
        _check_padding({f"{argument}.orig": orig, f"{argument}.new": new}, eos)

    def check_vocabulary(self, vocab_size: int, argument: str = "pairs") -> None:
        """Raise ValueError naming the first id that a vocabulary of this size lacks.

        Such an id behind END is no error: it becomes 0, so that embeddings can be looked up.
        """
        ends = {"orig": self.end, "new": self.new_end}
        for name in ("orig", "new", "answers", "wrong_answers"):
            ids = getattr(self, name)
            outside = ids >= vocab_size
            behind = behind_end(ids, ends[name]) if name in ends else torch.zeros_like(outside)
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
        extra = f", extra={', '.join(map(cut, self.extra))}" if self.extra else ""
        roles = ", ".join(map(cut, self.roles))
        return f"PromptPairs(N={len(self)}, {widths}, roles={roles}{extra})"


def _ended(name: str, tokens: Tensor, end: Tensor) -> Tensor:
    """Tokens up to the last END, checked up to each prompt's own."""
    return checked_to_end(name, tokens[:, : int(end.max()) + 1], end)


def _check_padding(prompts: Mapping[str, tuple[Tensor, Tensor]], eos: int | None) -> None:
    """Raise ValueError naming a prompt that is padded where it is read."""
    check_not_padded_in_front(prompts, eos)
    if eos is not None:
        check_not_read_at_padding(prompts, eos)


def first_changed(pairs: PromptPairs) -> Tensor:
    """The first token of each prompt that differs between orig and new, at the latest END, [N]."""
    T = min(pairs.orig.shape[1], pairs.new.shape[1])
    differs_NT = pairs.orig[:, :T] != pairs.new[:, :T]
    first = torch.where(differs_NT.any(1), differs_NT.int().argmax(1), T)
    return first.minimum(pairs.end)
