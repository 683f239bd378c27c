"""A circuit as data: heads, each kept at one role position or at several (paper section 5)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ioi_fast.asked.nodes import Head, Node, Sender, check_distinct, parse_node, read_node
from ioi_fast.asked.pairs_arguments import NO_ROLES
from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.asked.reach import first_reached
from ioi_fast.asked.receivers import read_receiver
from ioi_fast.model.config import GPT2Config
from ioi_fast.outside.quoting import quoted


class Circuit:
    """Heads and the role at which each is kept; as a base, everything else of the heads is ablated.

    A head that works at several positions has a list of roles. `classes` names groups of these
    heads; `edges` are (sender, receiver) pairs like ("2.2", "5.5.k"), between these heads, MLPs and
    "logits". Raises TypeError or ValueError for entries that are none of these or are there twice.

    >>> Circuit({"9.9": "END", "0.1": ["S1", "S2"]}, classes={"mover": ["9.9"]})
    Circuit(0.1@S1/S2, 9.9@END)
    """

    __slots__ = ("classes", "edges", "roles")

    def __init__(
        self,
        heads: Mapping,
        classes: Mapping[str, list] | None = None,
        edges: list[tuple[str, str]] | None = None,
    ) -> None:
        if not isinstance(heads, Mapping):
            raise TypeError(f"heads must be a dict like {{'9.9': 'END'}}, got {quoted(heads)}")
        roles: dict[Head, tuple[str, ...]] = {}
        for key, kept in heads.items():
            head = _read_head(key, "heads")
            if head in roles:
                raise ValueError(f"heads: {head} is there twice")
            argument = f"heads[{head}]"
            roles[head] = read_roles(kept, argument, "a role like 'END'")
            if any(role in NO_ROLES for role in roles[head]):
                raise ValueError(f"{argument} must be roles like 'END', got {quoted(kept)}")
        self.roles: dict[Head, tuple[str, ...]] = dict(sorted(roles.items()))
        if classes is not None and not isinstance(classes, Mapping):
            raise TypeError(
                f"classes must be a dict like {{'mover': ['9.9']}}, got {quoted(classes)}"
            )
        self.classes: dict[str, tuple[Head, ...]] = {
            name: self._class(name, members) for name, members in (classes or {}).items()
        }
        listed = [] if edges is None else _listed(edges, "edges", "[('2.2', '5.5.k')]")
        self.edges = tuple(self._edge(edge, f"edges[{i}]") for i, edge in enumerate(listed))
        check_distinct(self.edges, self.edges, "edges")

    def _class(self, name: object, members: object) -> tuple[Head, ...]:
        if not isinstance(name, str):
            raise TypeError(f"classes must have strings as names, got {quoted(name)}")
        argument = f"classes[{quoted(name)}]"
        heads = tuple(_read_head(key, argument) for key in _listed(members, argument, "['9.9']"))
        for head in heads:
            self._check_member(head, argument)
        check_distinct(heads, heads, argument)
        return heads

    def _edge(self, edge: object, argument: str) -> tuple[str, str]:
        if not isinstance(edge, (tuple, list)) or len(edge) != 2:
            raise TypeError(f"{argument} must be a pair like ('2.2', '5.5.k'), got {quoted(edge)}")
        sender = read_node(edge[0], argument)
        self._check_member(sender, argument)
        if isinstance(edge[1], str) and edge[1] == "logits":
            return str(sender), "logits"
        receiver = read_receiver(edge[1], argument)
        self._check_member(receiver.node, argument)
        if first_reached(Sender((sender,)), [receiver], receiver.node.layer + 1) is None:
            raise ValueError(f"{argument}: {sender} can't reach {receiver}, which comes earlier")
        return str(sender), str(receiver)

    def _check_member(self, node: Node, argument: str) -> None:
        if isinstance(node, Head) and node not in self.roles:
            raise ValueError(f"{argument}: {node} is not in the circuit")

    @property
    def nodes(self) -> tuple[tuple[Head, str], ...]:
        """Every head with each role at which it is kept: what a circuit's size is counted in."""
        return tuple((head, role) for head, roles in self.roles.items() for role in roles)

    def check(self, pairs: PromptPairs, config: GPT2Config) -> None:
        """Raises ValueError for a head that the model lacks or a role that the prompts lack."""
        for head, role in self.nodes:
            parse_node(head, config, "base")
            if role not in pairs.positions:
                raise ValueError(
                    f"base: the prompts have no role {quoted(role)} of {head}, "
                    f"only {', '.join(pairs.roles)}"
                )

    def __repr__(self) -> str:
        kept = (f"{head}@{'/'.join(roles)}" for head, roles in self.roles.items())
        return f"Circuit({', '.join(kept)})"


def read_roles(kept: object, argument: str, expected: str) -> tuple[str, ...]:
    """A role, or a list of different ones, as a tuple; raises TypeError or ValueError."""
    if isinstance(kept, str):
        return (kept,)
    if not isinstance(kept, (list, tuple)) or not all(isinstance(role, str) for role in kept):
        raise TypeError(f"{argument} must be {expected} or a list of roles, got {quoted(kept)}")
    if not kept:
        raise ValueError(f"{argument} must have at least one role, got an empty list")
    check_distinct(tuple(kept), kept, argument)
    return tuple(kept)


def _listed(value: object, argument: str, like: str) -> list:
    """What is listed; a text is no list, a set has no order, a dict would lose its values."""
    if isinstance(value, (str, set, frozenset, Mapping)) or not isinstance(value, Iterable):
        raise TypeError(f"{argument} must be a list like {like}, got {quoted(value)}")
    return list(value)


def _read_head(key: object, argument: str) -> Head:
    node = read_node(key, argument)
    if not isinstance(node, Head):
        raise ValueError(f"{argument}: expected a head like '9.9', got {quoted(key)}")
    return node
