"""Minimality: what each head of a circuit is worth beside a set K of others (section 4.3).

A head v counts if F(C∖(K ∪ {v})) and F(C∖K) differ. The sets K are chosen by hand in the paper, in
the order of its code or of its printed table; for other circuits they follow from the classes.
"""

from __future__ import annotations

from dataclasses import dataclass

from ioi_fast.asked.circuit import Circuit
from ioi_fast.asked.nodes import Head
from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.ioi import circuits
from ioi_fast.ioi.evaluation import Evaluation, Heads, evaluate
from ioi_fast.model.gpt2 import GPT2

ORDERS = ("code", "printed")
# The chain of movers as the printed table has it; 11.9 and 9.0 stand beside the three first.
_PRINTED_CHAIN = "9.9 10.0 9.6 11.2 10.6 10.10 10.2 9.7 10.1"
# These two of the released code are looked at with all movers and negative ones gone.
_LAST = ("9.0", "11.9")
# And these two with both negative ones gone alone.
_BESIDE_NEGATIVES = ("5.8", "5.9")


@dataclass(frozen=True, slots=True)
class Worth:
    """A head v, its set K, and F of the circuit without K and without both."""

    head: Head
    others: Heads
    without_others: float  # F(C∖K)
    without_both: float  # F(C∖(K ∪ {v}))
    of_model: float
    stderr: float = 0.0  # of the share

    @property
    def share(self) -> float:
        """|F(C∖(K ∪ {v})) − F(C∖K)| of F(M)."""
        return abs(self.without_both - self.without_others) / abs(self.of_model)


def unclassed(circuit: Circuit) -> list[Head]:
    """Heads of a circuit that are in none of its classes."""
    classed = {head for heads in circuit.classes.values() for head in heads}
    return [head for head in circuit.roles if head not in classed]


def minimality_sets(circuit: Circuit, order: str = "code") -> dict[Head, Heads]:
    """The set K of every head of a circuit that has classes.

    Members of a class stand for each other: K is the rest of the class, but for movers and their
    backups, of which K are those before the head in the order. "code" is the order of the released
    code, "printed" that of the paper's table, which is GPT-2 small's. Raises ValueError for another
    order and for heads without a class.
    """
    if order not in ORDERS:
        raise ValueError(f"order must be one of {', '.join(ORDERS)}, got {order!r}")
    for head in unclassed(circuit):
        raise ValueError(f"circuit: {head} is in no class, and its set follows from that")
    found: dict[Head, Heads] = {}
    chained = (circuits.MOVERS, circuits.BACKUPS)
    for name, heads in circuit.classes.items():
        if circuits.base_name(name) not in chained:
            for head in heads:  # of one in several classes, the rest of them all
                others = (*found.get(head, ()), *(h for h in heads if h != head))
                found[head] = tuple(dict.fromkeys(others))
    chain = [head for name in chained for head in circuits.members(circuit, name)]
    found |= {head: tuple(chain[:place]) for place, head in enumerate(chain)}
    if _is_published(circuit):
        found |= _published(circuit, chain, order)
    return found


def _is_published(circuit: Circuit) -> bool:
    full = circuits.published_circuit()
    return circuit.roles == full.roles and circuit.classes == full.classes


def _published(circuit: Circuit, chain: list[Head], order: str) -> dict[Head, Heads]:
    """Where the paper's sets for GPT-2 small are others than the classes would give."""
    negatives = circuit.classes[circuits.NEGATIVES]
    found: dict[Head, Heads] = {Head.parse(head): negatives for head in _BESIDE_NEGATIVES}
    last = [Head.parse(head) for head in _LAST]
    if order == "code":
        every = (*chain, *negatives)
        return found | {head: tuple(h for h in every if h != head) for head in last}
    printed = [Head.parse(head) for head in _PRINTED_CHAIN.split()]
    found |= {head: tuple(printed[:place]) for place, head in enumerate(printed)}
    first, second = last
    return found | {first: (*printed[:3], second), second: (*printed[:3], first)}


def minimality(
    model: GPT2,
    pairs: PromptPairs,
    circuit: Circuit,
    sets: dict[Head, Heads] | None = None,
    **running: object,
) -> list[Worth]:
    """What every head of a circuit is worth, in the order of `sets` (default: minimality_sets).

    `running` goes to `evaluate`. Equal sets are run once. Source: Wang et al. 2022, section 4.3.

    >>> min(minimality(model, pairs, circuit), key=lambda w: w.share).head    # doctest: +SKIP
    """
    sets = minimality_sets(circuit) if sets is None else sets
    asked = [heads for head, others in sets.items() for heads in (others, (*others, head))]
    found: Evaluation = evaluate(model, pairs, circuit, asked, **running)
    inside, of_model = found.points[:, 0].tolist(), float(found.of_model.double().mean())
    change = (found.in_circuit[1::2] - found.in_circuit[::2]).double()
    errors = change.std(-1) / (abs(of_model) * change.shape[-1] ** 0.5)
    return [
        Worth(head, others, inside[2 * row], inside[2 * row + 1], of_model, float(errors[row]))
        for row, (head, others) in enumerate(sets.items())
    ]
