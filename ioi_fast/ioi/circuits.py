"""The published circuits of GPT-2 small as data: classes, role positions, edges (paper section 3).

Classes keep the order of importance that the released code has; what follows from an order, such as
sets of minimality, reads it from there.
"""

from __future__ import annotations

from collections.abc import Iterable

from ioi_fast.asked.circuit import Circuit
from ioi_fast.asked.nodes import Head

MOVERS, BACKUPS, NEGATIVES = "name mover", "backup name mover", "negative name mover"
INHIBITION, INDUCTION = "S-inhibition", "induction"
DUPLICATE, PREVIOUS = "duplicate token", "previous token"

ROLES = {
    MOVERS: "END",
    BACKUPS: "END",
    NEGATIVES: "END",
    INHIBITION: "END",
    INDUCTION: "S2",
    DUPLICATE: "S2",
    PREVIOUS: "S1+1",
}
_FULL = {
    MOVERS: "9.9 10.0 9.6",
    BACKUPS: "10.10 10.6 10.2 10.1 11.2 9.7 9.0 11.9",
    NEGATIVES: "10.7 11.10",
    INHIBITION: "7.3 7.9 8.6 8.10",
    INDUCTION: "5.5 6.9 5.8 5.9",
    DUPLICATE: "0.1 3.0 0.10",
    PREVIOUS: "2.2 4.11",
}
_NAIVE = {
    MOVERS: "9.9 9.6 10.0",
    INHIBITION: "7.3 7.9 8.6 8.10",
    INDUCTION: "5.5 5.9",
    DUPLICATE: "3.0 0.10",
    PREVIOUS: "2.2 4.11",
}
# Who is read by whom, and through which inputs; MLPs between the ends belong to each edge.
_EDGES = (
    (PREVIOUS, INDUCTION, "kv"),
    (INDUCTION, INHIBITION, "kv"),
    (DUPLICATE, INHIBITION, "kv"),
    (INHIBITION, MOVERS, "q"),
    (INHIBITION, BACKUPS, "q"),
    (INHIBITION, NEGATIVES, "q"),
)


def base_name(name: str) -> str:
    """A class's name without what stands in brackets behind it.

    >>> base_name("name mover (reads END-1)")
    'name mover'
    """
    return name.split(" (")[0]


def members(circuit: Circuit, name: str) -> tuple[Head, ...]:
    """The heads of a class, and of those with the same name and something in brackets behind it.

    >>> len(members(published_circuit(), "name mover"))
    3
    """
    found = (heads for own, heads in circuit.classes.items() if base_name(own) == name)
    return tuple(dict.fromkeys(head for heads in found for head in heads))


def role_of(circuit: Circuit, name: str) -> str:
    """The role at which the heads of a class stand, where some of them are kept at others too.

    That is the class's own in the paper, or the one in its name, as in "END-1 from S2", if all of
    them are kept there; else the first that they have in common, or the first of the first. Raises
    ValueError for a class without heads.

    >>> role_of(published_circuit(), "induction")
    'S2'
    """
    heads = members(circuit, name) or circuit.classes.get(name, ())
    if not heads:
        raise ValueError(f"name must be a class with heads, got {name!r}")
    kept = [circuit.roles[head] for head in heads]
    shared = [role for role in kept[0] if all(role in roles for roles in kept)]
    for own in (ROLES.get(base_name(name)), name.split(" from ")[0]):
        if own in shared:
            return own
    return shared[0] if shared else kept[0][0]


def published_circuit(name: str = "full") -> Circuit:
    """GPT-2 small's circuit of 26 heads, or with "naive" the 13 heads of the one that came first.

    Raises ValueError for another name. Source: Wang et al. 2022, sections 3 and 4.

    >>> len(published_circuit().roles), len(published_circuit("naive").roles)
    (26, 13)
    """
    named = {"full": _FULL, "naive": _NAIVE}
    if name not in named:
        raise ValueError(f"name must be one of {', '.join(named)}, got {name!r}")
    classes = {role: heads.split() for role, heads in named[name].items()}
    return circuit_of_classes(classes)


def circuit_of_classes(classes: dict[str, Iterable[str]]) -> Circuit:
    """A circuit from heads by class; roles and edges are the classes' own.

    Edges that a head can't have, since its sender is not earlier, are left out. Raises ValueError
    for a class that is none of ROLES and for a head that is there twice.
    """
    listed = {name: [str(head) for head in heads] for name, heads in classes.items()}
    roles: dict[str, str] = {}
    for name, heads in listed.items():
        if name not in ROLES:
            raise ValueError(f"classes must be among {', '.join(ROLES)}, got {name!r}")
        for head in heads:
            if head in roles:
                raise ValueError(f"classes: {head} is there twice")
            roles[head] = ROLES[name]
    return Circuit(roles, listed, list(_edges(listed)))


def _edges(classes: dict[str, list[str]]) -> Iterable[tuple[str, str]]:
    for senders, receivers, inputs in _EDGES:
        for sender in classes.get(senders, ()):
            for receiver in classes.get(receivers, ()):
                if Head.parse(sender).layer < Head.parse(receiver).layer:
                    yield from ((sender, f"{receiver}.{site}") for site in inputs)
    for name in (MOVERS, BACKUPS, NEGATIVES):
        yield from ((head, "logits") for head in classes.get(name, ()))
