"""The heads that tell the name movers where to look, or, in other models, what to say.

In GPT-2 small these are the S-inhibition heads, which move the queries of the movers at END. Where
a circuit has none, the heads that have edges to its movers stand in their place: what is measured
of the ones is measured of the others, at their own role and through the input that they write to.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ioi_fast.asked.circuit import Circuit
from ioi_fast.asked.nodes import Head
from ioi_fast.ioi import circuits


@dataclass(frozen=True, slots=True)
class Tellers:
    """Heads at a role, and the input of the movers that they write to."""

    name: str  # of their class
    heads: tuple[str, ...]
    role: str
    site: str  # q, k or v

    @property
    def place(self) -> str:
        """For a caption."""
        return f"{self.name} heads at {self.role}"


def tellers_of(circuit: Circuit) -> Tellers | None:
    """The S-inhibition heads of a circuit, or those behind most of the edges to its movers; None
    where nobody tells the movers anything.

    >>> tellers_of(circuits.published_circuit()).heads
    ('7.3', '7.9', '8.6', '8.10')
    """
    inhibition = circuits.members(circuit, circuits.INHIBITION)
    if inhibition:
        role = circuits.role_of(circuit, circuits.INHIBITION)
        return Tellers(circuits.INHIBITION, tuple(map(str, inhibition)), role, "q")
    movers = circuits.members(circuit, circuits.MOVERS)
    named = {head: name for name, heads in circuit.classes.items() for head in heads}
    counted: Counter[tuple[str, str]] = Counter()
    for sender, receiver in circuit.edges:
        head, site = Head.parse(sender), receiver.rpartition(".")[2]
        told = receiver != "logits" and Head.parse(receiver.rpartition(".")[0]) in movers
        if told and head not in movers and head in named:
            counted[named[head], site] += 1
    if not counted:
        return None
    (name, site), _ = counted.most_common(1)[0]
    role = circuits.role_of(circuit, name)
    return Tellers(name, tuple(map(str, circuit.classes[name])), role, site)
