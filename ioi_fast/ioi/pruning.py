"""From heads that count to a circuit of those that it can't do without, one head less at a time.

Every circuit on the way is kept: together they are the curve of faithfulness against size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ioi_fast.asked.circuit import Circuit
from ioi_fast.asked.nodes import Head
from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.calls.ablate import ablate
from ioi_fast.ioi import circuits
from ioi_fast.model.gpt2 import GPT2

Node = tuple[Head, str]
Nodes = frozenset[Node]


@dataclass(frozen=True, slots=True)
class Step:
    """A circuit on the way down: its nodes in order of strength, and what each is worth.

    A node v is worth the largest of |F(C∖(K ∪ v)) − F(C∖K)| over sets K of others that may stand in
    for it (section 4.3), the empty one too, as a share of F(M).
    """

    nodes: tuple[Node, ...]
    share: float  # F(C)/F(M)
    worth: tuple[float, ...]

    @property
    def miss(self) -> float:
        """|F(M) − F(C)| as a share of F(M)."""
        return abs(1 - self.share)

    @property
    def least(self) -> float:
        """What the node is worth that is worth least."""
        return min(self.worth)


def circuit_of_nodes(nodes: Sequence[Node], **of_circuit: object) -> Circuit:
    """The circuit of (head, role) nodes; a head may have several."""
    roles: dict[str, list[str]] = {}
    for head, role in nodes:
        roles.setdefault(str(head), []).append(role)
    return Circuit(roles, **of_circuit)


def prune(
    model: GPT2,
    pairs: PromptPairs,
    classes: Mapping[Node, str],
    *,
    minimal: float = 0.05,
    source: str = "mean_by_form",
    mean_pairs: PromptPairs | None = None,
    **running: object,
) -> list[Step]:
    """Circuits of fewer and fewer of these nodes, from all of them to one.

    `classes` has the class of each node, in order of strength. The node goes that is worth least;
    nodes that are worth less than a fifth of `minimal` go together. `running` goes to `ablate`.
    Raises ValueError for no nodes, and as `ablate` does.

    >>> [len(step.nodes) for step in prune(model, pairs, classes)]    # doctest: +SKIP
    [3, 2, 1]
    """
    if not classes:
        raise ValueError("classes must have at least one node, got none")
    how = {"source": source, "mean_pairs": mean_pairs, **running}
    of_model = float(ablate(model, pairs, [{}], **how).base.double().mean())
    nodes, steps = tuple(classes), []
    while nodes:
        step = _step(model, pairs, nodes, classes, of_model, how)
        steps.append(step)
        gone = _unneeded(step, minimal)
        nodes = tuple(node for node in nodes if node not in gone)
    return steps


def _unneeded(step: Step, minimal: float) -> set[Node]:
    worth = dict(zip(step.nodes, step.worth, strict=True))
    nothing = {node for node, value in worth.items() if value < minimal / 5}
    return nothing or {min(worth, key=worth.__getitem__)}


def _step(
    model: GPT2,
    pairs: PromptPairs,
    nodes: tuple[Node, ...],
    classes: Mapping[Node, str],
    of_model: float,
    how: Mapping[str, object],
) -> Step:
    """Evaluates a circuit, all knock-outs of it in one batch."""
    without = {node: _sets(node, nodes, classes) for node in nodes}
    sets = [k | more for node in nodes for k in without[node] for more in (set(), {node})]
    distinct = list(dict.fromkeys(map(frozenset, sets)))
    result = ablate(
        model, pairs, [variant_of(one) for one in distinct], base=circuit_of_nodes(nodes), **how
    )
    means = (result.base + result.values).double().mean(-1) / of_model
    share = dict(zip(distinct, means.tolist(), strict=True))
    worth = [max(abs(share[k | {node}] - share[k]) for k in without[node]) for node in nodes]
    return Step(nodes, share[Nodes()], tuple(worth))


def _sets(node: Node, nodes: Sequence[Node], classes: Mapping[Node, str]) -> list[Nodes]:
    """Sets K beside which a node is looked at: none, and what may stand in for it.

    That is the rest of its class; movers and their back-ups are one, of which the stronger ones are
    a set too.
    """
    chain = (circuits.MOVERS, circuits.BACKUPS)
    if circuits.base_name(classes[node]) in chain:
        links = [one for one in nodes if circuits.base_name(classes[one]) in chain]
        return [Nodes(), frozenset(links[: links.index(node)]), frozenset(links) - {node}]
    rest = frozenset(one for one in nodes if classes[one] == classes[node])
    return [Nodes(), rest - {node}]


def variant_of(nodes: Nodes) -> dict[str, list[str]]:
    """What `ablate` takes to knock nodes out."""
    roles: dict[str, list[str]] = {}
    for head, role in sorted(nodes):
        roles.setdefault(str(head), []).append(role)
    return roles
