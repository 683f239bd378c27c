"""A circuit found by machine: heads that matter, cut down to what the circuit can't do without."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ioi_fast.asked.circuit import Circuit
from ioi_fast.asked.interventions import check_choice
from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.asked.sources import SOURCES
from ioi_fast.calls.ablate import ablate
from ioi_fast.calls.path_patch import path_patch
from ioi_fast.ioi.backwards import Found, NothingToFind, Search, search_backwards
from ioi_fast.ioi.class_of_head import KNOCKED_OUT, LOGITS
from ioi_fast.ioi.pruning import Step, circuit_of_nodes, prune, variant_of
from ioi_fast.ioi.roles import with_roles
from ioi_fast.ioi.significance import LEAST, LEVEL, counting
from ioi_fast.model.gpt2 import GPT2


@dataclass(frozen=True, slots=True, eq=False)
class Discovery:
    """What was found, every circuit on the way down, and the one that was chosen."""

    search: Search
    steps: tuple[Step, ...]
    chosen: Step
    faithful: bool  # whether the chosen one is within the tolerance, each node needed
    circuit: Circuit

    @property
    def pairs(self) -> PromptPairs:
        """The prompts, with the roles that were found."""
        return self.search.pairs

    def share_of_nodes(self, model: GPT2) -> float:
        """The circuit's part of all (head, role) nodes."""
        config = model.config
        return len(self.circuit.nodes) / (config.n_layer * config.n_head * len(self.pairs.roles))


def discover(
    model: GPT2,
    pairs: PromptPairs,
    *,
    mean_pairs: PromptPairs | None = None,
    least: float = LEAST,
    level: float = LEVEL,
    minimal: float = 0.05,
    tolerance: float = 0.15,
    source: str | None = None,
    **running: object,
) -> Discovery:
    """A model's circuit for a task, without anyone's help.

    `search_backwards` finds the heads that matter (`least` and `level`), `prune` takes away one
    after the other. Chosen is the largest circuit with |F(M) − F(C)| within `tolerance` of F(M)
    whose nodes are each worth `minimal` of F(M); where there is none, the one that comes closest,
    and `faithful` is False. Means are taken by form where forms are known, over `mean_pairs`
    (default: pairs); `running` goes to the calls. The circuit has the classes of section 3 where
    heads read and copy as these do, and the edges that matter by themselves. Raises ValueError
    naming the argument, NothingToFind where no head matters. Source: Wang et al. 2022, section 3.

    >>> discover(model, pairs).circuit    # doctest: +SKIP
    """
    for name, value in (("minimal", minimal), ("tolerance", tolerance)):
        if not 0 < value < 1:
            raise ValueError(f"{name} must lie between 0 and 1, got {value}")
    if source is not None:
        check_choice(source, SOURCES, "source")
    else:
        known = pairs.forms is not None and (mean_pairs is None or mean_pairs.forms is not None)
        source = "mean_by_form" if known else "mean"
    search = search_backwards(model, pairs, least=least, level=level, source=source, **running)
    if not search.found:
        raise NothingToFind(
            f"pairs: no head moves the metric by {least:.0%} of its mean with p below {level:g}"
        )
    classes = {(one.head, one.role): one.name for one in search.found}
    if mean_pairs is not None:
        mean_pairs = with_roles(mean_pairs, search.pairs.roles)
    how = {"source": source, "mean_pairs": mean_pairs, **running}
    steps = tuple(prune(model, search.pairs, classes, minimal=minimal, **how))
    chosen, faithful = choose(steps, minimal, tolerance)
    circuit = _circuit(model, search, chosen, least, level, running)
    return Discovery(search, steps, chosen, faithful, circuit)


def choose(steps: Sequence[Step], minimal: float, tolerance: float) -> tuple[Step, bool]:
    """The circuit of a path that is kept, and whether it is faithful and minimal: the largest that
    is, since a larger one does more of what the model does when heads are knocked out."""
    good = [step for step in steps if step.miss <= tolerance and step.least >= minimal]
    if not good:
        return min(steps, key=lambda step: (step.miss, len(step.nodes))), False
    return max(good, key=lambda step: len(step.nodes)), True


def _circuit(
    model: GPT2,
    search: Search,
    chosen: Step,
    least: float,
    level: float,
    running: Mapping[str, object],
) -> Circuit:
    """With classes, strongest first, and edges."""
    kept = [one for one in search.found if (one.head, one.role) in chosen.nodes]
    classes: dict[str, list[str]] = {}
    for one in kept:
        members = classes.setdefault(one.name, [])
        if str(one.head) not in members:
            members.append(str(one.head))
    edges = list(dict.fromkeys(_edges(model, search, kept, least, level, running)))
    return circuit_of_nodes(chosen.nodes, classes=classes, edges=edges)


def _edges(
    model: GPT2,
    search: Search,
    kept: Sequence[Found],
    least: float,
    level: float,
    running: Mapping[str, object],
) -> Iterator[tuple[str, str]]:
    """Pairs of kept heads whose one path matters.

    A class is patched at once in the search; of a single receiver the effect has to be an equal
    part of `least`.
    """
    for one in kept:
        if any(why.receivers in (LOGITS, KNOCKED_OUT) for why in one.evidence):
            yield str(one.head), "logits"
    for receiver in kept:
        alike = sum(one.name == receiver.name for one in kept)
        inputs = [("q", receiver.role)]
        inputs += [(site, place) for place in receiver.reads for site in ("k", "v")]
        for site, place in inputs:
            senders = [
                str(one.head)
                for one in kept
                if one.role == place and one.head.layer < receiver.head.layer
            ]
            if not senders:
                continue
            to = f"{receiver.head}.{site}"
            result = path_patch(model, search.pairs, senders, [to], place, **running)
            effects = result.values.double().mean(-1) / search.of_model
            counts, _ = counting(result.values, effects, least / alike, level)
            yield from (
                (sender, to) for sender, meant in zip(senders, counts, strict=True) if meant
            )


def random_circuits(
    model: GPT2, pairs: PromptPairs, size: int, count: int = 100, seed: int = 0
) -> list[Circuit]:
    """Circuits of `size` (head, role) nodes, drawn among all heads and roles of the prompts.

    Raises ValueError for sizes that no circuit has.
    """
    config = model.config
    heads = [f"{layer}.{head}" for layer in range(config.n_layer) for head in range(config.n_head)]
    nodes = [(head, role) for head in heads for role in pairs.roles]
    if not 1 <= size <= len(nodes):
        raise ValueError(f"size must be from 1 to {len(nodes)}, got {size}")
    rng = random.Random(f"random circuits {seed}")
    return [circuit_of_nodes(rng.sample(nodes, size)) for _ in range(count)]


def shares(
    model: GPT2, pairs: PromptPairs, circuits: Sequence[Circuit], **running: object
) -> Tensor:
    """F(C)/F(M) of circuits, [C]; `running` goes to `ablate`.

    All are run at once, as what is left of one circuit of all their nodes, unless roles stand at
    the same token of a prompt, where a head would be kept and knocked out.
    """
    if not circuits:
        raise ValueError("circuits must have at least one circuit, got none")
    of_model = ablate(model, pairs, [{}], **running).base.double().mean()
    nodes = sorted({node for one in circuits for node in one.nodes})
    if not _stand_apart(pairs, {role for _, role in nodes}):
        found = [ablate(model, pairs, [{}], base=one, **running).base for one in circuits]
        return torch.stack(found).double().mean(-1) / of_model
    left_out = [frozenset(nodes) - frozenset(one.nodes) for one in circuits]
    distinct = list(dict.fromkeys(left_out))
    whole = circuit_of_nodes(nodes)
    result = ablate(model, pairs, [variant_of(one) for one in distinct], base=whole, **running)
    means = (result.base + result.values).double().mean(-1)
    return torch.stack([means[distinct.index(one)] for one in left_out]) / of_model


def _stand_apart(pairs: PromptPairs, roles: set[str]) -> bool:
    """Whether no two roles stand at the same token of any prompt."""
    places = torch.stack([pairs.positions[role] for role in sorted(roles)]).sort(0).values
    return bool((places.diff(dim=0) > 0).all())
