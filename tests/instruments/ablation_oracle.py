"""Which cells an intervention names and what ablated outputs become, by loops over hooked runs.

Shares nothing with the package but the prompts; edits are for hook_oracle.HookedModel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product

import torch
from hook_oracle import Edit, HookedModel, Place, logit_diff, put
from torch import Tensor

from ioi_fast import PromptPairs

Edits = list[tuple[Place, Edit]]
Role = str | int | None  # None and "all" stand for every position, an int for that token


def cells(pairs: PromptPairs, role: Role, run: str = "orig") -> Tensor:
    """The cells of a role in the orig or new run, [N, T]."""
    tokens, roles = pairs.orig, pairs.positions
    if run == "new":
        tokens, roles = pairs.new, pairs.new_roles
    if role in (None, "all"):
        return torch.ones(tokens.shape, dtype=torch.bool)
    at = roles[role][:, None] if isinstance(role, str) else role
    return (torch.arange(tokens.shape[1]) == at).expand(tokens.shape)


def aligner(pairs: PromptPairs, role: Role) -> Callable[[Tensor], Tensor]:
    """Brings new-run values to the cells of a role: token t to token t, or role to role."""
    T = pairs.orig.shape[1]
    if role in (None, "all") or isinstance(role, int):
        return lambda value: value[:, :T]

    def align(value: Tensor) -> Tensor:
        out = value.new_zeros(len(pairs), T, value.shape[-1])
        for n in range(len(pairs)):
            out[n, pairs.positions[role][n]] = value[n, pairs.new_roles[role][n]]
        return out

    return align


def effect(hooked: HookedModel, pairs: PromptPairs, edits: Edits, base: Edits = ()) -> Tensor:
    """Logit difference of the orig run under edits minus that under the edits of a base, [N]."""
    return metric(hooked, pairs, [*base, *edits]) - metric(hooked, pairs, base)


def metric(hooked: HookedModel, pairs: PromptPairs, edits: Edits = ()) -> Tensor:
    """Logit difference of the orig run under edits, [N]."""
    logits, _ = hooked.run(pairs.orig, edits)
    return logit_diff(logits, pairs.end, pairs.answers, pairs.wrong_answers)


class Replacement:
    """What the outputs of ablated nodes become, for one of the four sources."""

    def __init__(
        self,
        hooked: HookedModel,
        pairs: PromptPairs,
        source: str,
        mean_pairs: PromptPairs | None = None,
    ) -> None:
        self.hooked, self.pairs, self.source = hooked, pairs, source
        # Values of source "new" are each prompt's own: other prompts have no say in them.
        own = source == "new" or mean_pairs is None
        self.mean_pairs = pairs if own else mean_pairs
        _, self.clean = hooked.run(self.mean_pairs.new)

    def variant(self, variant: Mapping[str, str], run: str = "orig") -> Edits:
        """Edits that ablate {node: role, roles or "all"} in the orig or new run."""
        return [
            self._edit(node, cells(self.pairs, role, run), role, run)
            for node, roles in variant.items()
            for role in ([roles] if isinstance(roles, str) else roles)
        ]

    def circuit(self, roles: Mapping[str, str]) -> Edits:
        """Edits that ablate every head but where a circuit {head: role or roles} keeps it."""
        heads = self.hooked.width // self.hooked.d_head
        edits = []
        for layer, head in product(range(self.hooked.layers), range(heads)):
            name = f"{layer}.{head}"
            where = cells(self.pairs, "all")
            kept = roles.get(name, ())
            for role in [kept] if isinstance(kept, str) else kept:
                where &= ~cells(self.pairs, role)
            edits.append(self._edit(name, where, "all", "orig"))
        return edits

    def _edit(self, node: str, where: Tensor, role: str, run: str) -> tuple[Place, Edit]:
        place, columns = self.hooked.place(node)
        return place, put(where, columns, self._value(place, role, run))

    def _value(self, place: Place, role: str, run: str) -> Tensor:
        tokens = self.pairs.orig if run == "orig" else self.pairs.new
        clean = self.clean[place]
        if self.source == "zero":
            return clean.new_zeros(*tokens.shape, clean.shape[-1])
        if self.source == "new":
            return clean if run == "new" else aligner(self.pairs, role)(clean)
        end = self.pairs.end if run == "orig" else self.pairs.new_end
        value = torch.stack([self._mean(clean, n, tokens.shape[1]) for n in range(len(end))])
        # Behind END a mean may have no member; before it, NaN must show in the result.
        behind = torch.arange(tokens.shape[1]) > end[:, None]
        return torch.where(behind[..., None], 0, value)

    def _mean(self, clean: Tensor, n: int, T: int) -> Tensor:
        """At each token the mean over the prompts that prompt n shares a mean with, [T, W]."""
        others = self.mean_pairs
        members = [
            m
            for m in range(len(others))
            if self.source == "mean" or others.forms[m] == self.pairs.forms[n]
        ]
        rows = torch.full((T, clean.shape[-1]), torch.nan, dtype=clean.dtype)
        for t in range(T):
            reach = [clean[m, t] for m in members if t <= int(others.new_end[m])]
            if reach:
                rows[t] = torch.stack(reach).mean(0)
        return rows
