"""Which heads a class of heads reads, and what backs up what is knocked out (sections 3, 4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ioi_fast.asked.circuit import Circuit
from ioi_fast.asked.nodes import Head
from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.asked.sites import INPUTS
from ioi_fast.calls.ablate import ablate
from ioi_fast.calls.path_patch import path_patch
from ioi_fast.ioi import circuits
from ioi_fast.ioi.significance import LEAST
from ioi_fast.model.gpt2 import GPT2
from ioi_fast.results.result import Result

# Where the keys and values stand that a class reads: the role that it attends to.
ATTENDED = {
    circuits.MOVERS: "IO",
    circuits.BACKUPS: "IO",
    circuits.NEGATIVES: "IO",
    circuits.INHIBITION: "S2",
    circuits.INDUCTION: "S1+1",
    circuits.DUPLICATE: "S1",
    circuits.PREVIOUS: "S1",
}


def to_class(
    model: GPT2,
    pairs: PromptPairs,
    circuit: Circuit,
    name: str,
    site: str,
    *,
    position: str | None = None,
    senders: object = "heads",
    **running: object,
) -> Result:
    """Path patching of every head to the queries, keys or values of a class, all at once.

    Queries are patched at the class's role, keys and values at the one that it attends to, unless
    `position` names another. `running` goes to `path_patch`. Raises ValueError naming `name` or
    `site`, and as `path_patch` does. Source: Wang et al. 2022, sections 3.2 and 3.3: "q" of the
    name movers, "v" and "k" of the S-inhibition heads, "k" of the induction heads.

    >>> to_class(model, pairs, circuit, "name mover", "q").ranking()[:4]    # doctest: +SKIP
    """
    heads = circuits.members(circuit, name)
    if not heads:
        raise ValueError(f"name must be one of {', '.join(circuit.classes)}, got {name!r}")
    if site not in INPUTS:
        raise ValueError(f"site must be 'q', 'k' or 'v', got {site!r}")
    receivers = [f"{head}.{site}" for head in heads]
    if position is None:
        role = circuits.role_of(circuit, name)
        position = role if site == "q" else ATTENDED.get(name, role)
    return path_patch(model, pairs, senders, receivers, position, **running)


@dataclass(frozen=True, slots=True, eq=False)
class Backups:
    """Every head to the logits, before and after some heads are knocked out, in percent of the
    whole model's metric: what rises to take their place."""

    knocked_out: tuple[Head, ...]
    before: Result
    after: Result

    @property
    def remaining(self) -> float:
        """F with the heads knocked out, as a share of F(M)."""
        return float(self.after.base.double().mean() / self.before.base.double().mean())

    @property
    def change(self) -> Tensor:
        """By how much each head's effect grew towards the answer, share of F(M), [L, H].

        Patching a head that writes for the answer lowers F: it counts as positive.
        """
        whole = self.before.base.double().mean().abs()
        return ((self.before.effect.double() - self.after.effect.double()) / whole).float()

    def heads(self, least: float = LEAST) -> list[Head]:
        """Heads whose effect after is at least this share of F(M) and larger than before, the
        largest first, without those that are knocked out."""
        whole = abs(float(self.before.base.double().mean()))
        after = (-self.after.effect / whole).flatten().tolist()
        grown = self.change.flatten().tolist()
        H = self.after.effect.shape[1]
        found = [
            (share, Head(place // H, place % H))
            for place, share in enumerate(after)
            if share >= least and grown[place] > 0
        ]
        ranked = sorted(found, key=lambda one: -one[0])
        return [head for _, head in ranked if head not in self.knocked_out]


def backups(
    model: GPT2,
    pairs: PromptPairs,
    heads: object,
    *,
    role: str = "END",
    source: str = "mean_by_form",
    **running: object,
) -> Backups:
    """Path patching of all heads to the logits twice, the second time without some heads.

    `heads` are knocked out at a role in both runs of the second sweep. `running` goes to
    `path_patch`. Source: Wang et al. 2022, section 3.4.

    >>> backups(model, pairs, ["9.9", "10.0", "9.6"]).heads()    # doctest: +SKIP
    """
    named = tuple(head if isinstance(head, Head) else Head.parse(str(head)) for head in heads)
    before = path_patch(model, pairs, **running)
    knock_out = {str(head): role for head in named}
    after = path_patch(model, pairs, knock_out=knock_out, knock_out_source=source, **running)
    return Backups(named, before, after)


@dataclass(frozen=True, slots=True, eq=False)
class MlpKnockOuts:
    """Metric of every prompt without each MLP alone, and without all but the first."""

    alone: Tensor  # [L, N]
    all_but_first: Tensor  # [N]
    base: Tensor  # [N]

    @property
    def mean(self) -> Tensor:
        """Means over prompts without each MLP, [L]."""
        return self.alone.double().mean(-1)


def mlp_knock_outs(
    model: GPT2,
    pairs: PromptPairs,
    source: str = "mean_by_form",
    position: str = "all",
    **running: object,
) -> MlpKnockOuts:
    """Knocks out every MLP alone, and all but the first together (section 3 and appendix).

    `position` is a role or "all"; `running` goes to `ablate`. Raises ValueError for a model of one
    layer, and as `ablate` does.
    """
    layers = model.config.n_layer
    if layers < 2:
        raise ValueError(f"model must have at least two layers, got {layers}")
    variants = [{f"mlp{layer}": position} for layer in range(layers)]
    # Of two layers all but the first are the second alone.
    if layers > 2:
        variants.append({f"mlp{layer}": position for layer in range(1, layers)})
    result = ablate(model, pairs, variants, source, **running)
    values = result.base + result.values
    return MlpKnockOuts(values[:layers], values[-1], torch.clone(result.base))
