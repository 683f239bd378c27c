"""Circuits put to the test: faithfulness and completeness of any sets of knock-outs (section 4).

Two semantics that are not the same: C∖K is the circuit without the heads K, which are ablated
everywhere like all that is not in it; M∖K is the whole model, in which the heads K are ablated at
their role position only. Knock-outs are mean ablations by form (appendix).
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ioi_fast.asked.circuit import Circuit
from ioi_fast.asked.nodes import Head
from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.calls.ablate import ablate
from ioi_fast.ioi.circuits import base_name
from ioi_fast.model.gpt2 import GPT2
from ioi_fast.own_settings import own_settings

Heads = tuple[Head, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Metrics of every prompt when sets K are knocked out: F(C∖K) and F(M∖K), and without any."""

    circuit: Circuit
    sets: tuple[Heads, ...]
    in_circuit: Tensor  # [P, N]
    in_model: Tensor  # [P, N]
    of_circuit: Tensor  # [N] F(C)
    of_model: Tensor  # [N] F(M)

    @property
    def points(self) -> Tensor:
        """(F(C∖K), F(M∖K)) of each set, means over prompts, [P, 2]."""
        return torch.stack([self.in_circuit, self.in_model], -1).double().mean(1)

    @property
    def incompleteness(self) -> Tensor:
        """|F(C∖K) − F(M∖K)| of each set, [P]."""
        return (self.points[:, 0] - self.points[:, 1]).abs()

    @property
    def faithfulness(self) -> Faithfulness:
        """Of the circuit itself."""
        return Faithfulness.of(self.of_model, self.of_circuit)


@dataclass(frozen=True, slots=True)
class Faithfulness:
    """F(M), F(C), the distance of both, and the circuit's share, with a bootstrap interval."""

    model: float
    circuit: float
    prompts: int
    interval: tuple[float, float]  # of the share, 95 %

    @classmethod
    def of(cls, of_model: Tensor, of_circuit: Tensor, seed: int = 0) -> Faithfulness:
        """From both metrics of every prompt, [N]."""
        model, circuit = of_model.double(), of_circuit.double()
        share = resampled_shares(circuit, model, seed)
        low, high = (float(share.quantile(q)) for q in (0.025, 0.975))
        return cls(float(model.mean()), float(circuit.mean()), len(model), (low, high))

    @property
    def distance(self) -> float:
        """|F(M) − F(C)|."""
        return abs(self.model - self.circuit)

    @property
    def share(self) -> float:
        """F(C)/F(M)."""
        return self.circuit / self.model if self.model else math.nan


def resampled_shares(part: Tensor, whole: Tensor, seed: int, draws: int = 1000) -> Tensor:
    """Mean part / mean whole of `draws` resamples of the prompts, which stay paired."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(part), (draws, len(part)), generator=generator)
    return part[chosen].mean(1) / whole[chosen].mean(1)


def evaluate(
    model: GPT2,
    pairs: PromptPairs,
    circuit: Circuit,
    sets: Iterable[Iterable[object]],
    *,
    source: str = "mean_by_form",
    mean_pairs: PromptPairs | None = None,
    **running: object,
) -> Evaluation:
    """Knocks out sets of a circuit's heads, in the circuit and in the model.

    `sets` are lists of heads like ["9.9", "10.0"]; an empty one is the circuit, and the model, as
    they are; equal ones are run once. `mean_pairs` (default: pairs) are the prompts behind the
    means; `running` goes to `ablate` (precision, backend, threads, max_memory, progress, metric).
    Raises ValueError naming a head that is not in the circuit, and as `ablate` does. Source: Wang
    et al. 2022, section 4.

    >>> evaluate(model, pairs, circuit, [[], ["9.9"]]).faithfulness.share    # doctest: +SKIP
    """
    asked = tuple(_heads(circuit, heads, index) for index, heads in enumerate(sets))
    if not asked:
        raise ValueError("sets must hold at least one set of heads, got none")
    distinct = list(dict.fromkeys(frozenset(heads) for heads in asked))
    variants = [{str(h): circuit.roles[h] for h in sorted(heads)} for heads in distinct]
    how = {"source": source, "mean_pairs": mean_pairs, **running}
    inside = ablate(model, pairs, variants, base=circuit, **how)
    outside = ablate(model, pairs, variants, **how)
    rows = [distinct.index(frozenset(heads)) for heads in asked]
    return Evaluation(
        circuit,
        asked,
        (inside.base + inside.values)[rows],
        (outside.base + outside.values)[rows],
        inside.base,
        outside.base,
    )


def _heads(circuit: Circuit, heads: Iterable[object], index: int) -> Heads:
    if isinstance(heads, (str, Mapping)):
        raise TypeError(f"sets[{index}] must be a list of heads like ['9.9'], got {heads!r}")
    try:
        found = tuple(h if isinstance(h, Head) else Head.parse(str(h)) for h in heads)
    except ValueError as problem:
        raise ValueError(f"sets[{index}]: {problem}") from None
    for head in found:
        if head not in circuit.roles:
            raise ValueError(f"sets[{index}]: {head} is not in the circuit")
        if found.count(head) > 1:
            raise ValueError(f"sets[{index}]: {head} is there twice")
    return found


def random_sets(circuit: Circuit, count: int = 100, seed: int = 0) -> list[Heads]:
    """Sets in which every head of the circuit is with probability ½ (section 4.2)."""
    rng = random.Random(f"random sets {seed}")
    heads = sorted(circuit.roles)
    return [tuple(head for head in heads if rng.random() < 0.5) for _ in range(count)]


def class_sets(
    circuit: Circuit, together: Sequence[Sequence[str]] = (("name mover", "backup name mover"),)
) -> dict[str, Heads]:
    """Every class of a circuit as a set, by name; classes that are named together are one.

    The released code has name movers and their backups as one class, which is the default.
    """
    found: dict[str, Heads] = {"none": ()}
    joined = {name: group for group in together for name in group}
    for name in circuit.classes:
        group = joined.get(base_name(name), (name,))
        own = [one for one in circuit.classes if one == name or base_name(one) in group]
        heads = (head for one in own for head in circuit.classes[one])
        found[" + ".join(own)] = tuple(dict.fromkeys(heads))
    return found


@own_settings()
def mean_counts(mean_pairs: PromptPairs, by_form: bool = True) -> dict[str, list[int]]:
    """How many prompts are behind the mean of each token position, by form: T numbers each."""
    if by_form and mean_pairs.forms is None:
        raise ValueError("mean_pairs must have forms for means by form, got none")
    T = int(mean_pairs.new_end.max()) + 1
    there_NT = torch.arange(T) <= mean_pairs.new_end[:, None]
    if not by_form:
        return {"all": there_NT.sum(0).tolist()}
    forms = mean_pairs.forms
    return {str(form): there_NT[forms == form].sum(0).tolist() for form in forms.unique().tolist()}
