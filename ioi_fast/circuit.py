"""A circuit as data: heads, each kept at one role position (paper section 5)."""

from __future__ import annotations

from collections.abc import Mapping

from ioi_fast.config import GPT2Config
from ioi_fast.prompts import PromptPairs
from ioi_fast.sites import Head, parse_node, read_node


class Circuit:
    """Heads and the role at which each is kept; as a base, everything else of the heads is ablated.

    `classes` names groups of these heads; `edges` are (sender, receiver) pairs like
    ("2.2", "5.5.k"). Raises TypeError or ValueError for entries that are no heads or are there
    twice.

    >>> Circuit({"9.9": "END", "0.1": "S2"}, classes={"mover": ["9.9"]})
    Circuit(0.1@S2, 9.9@END)
    """

    __slots__ = ("classes", "edges", "roles")

    def __init__(
        self,
        heads: Mapping,
        classes: Mapping[str, list] | None = None,
        edges: list[tuple[str, str]] | None = None,
    ) -> None:
        if not isinstance(heads, Mapping):
            raise TypeError(f"heads must be a dict like {{'9.9': 'END'}}, got {heads!r}")
        roles: dict[Head, str] = {}
        for key, role in heads.items():
            head = _read_head(key, "heads")
            if head in roles:
                raise ValueError(f"heads: {head} is there twice")
            if not isinstance(role, str):
                raise TypeError(f"heads[{head}] must be a role like 'END', got {role!r}")
            roles[head] = role
        self.roles: dict[Head, str] = dict(sorted(roles.items()))
        self.classes = {
            name: tuple(self._member(key, name) for key in members)
            for name, members in (classes or {}).items()
        }
        self.edges = tuple((str(sender), str(receiver)) for sender, receiver in edges or ())

    def _member(self, key: object, name: str) -> Head:
        head = _read_head(key, f"classes[{name!r}]")
        if head not in self.roles:
            raise ValueError(f"classes[{name!r}]: {head} is not in the circuit")
        return head

    def check(self, pairs: PromptPairs, config: GPT2Config) -> None:
        """Raises ValueError for a head that the model lacks or a role that the prompts lack."""
        for head, role in self.roles.items():
            parse_node(head, config, "base")
            if role not in pairs.positions:
                raise ValueError(
                    f"base: the prompts have no role {role!r} of {head}, "
                    f"only {', '.join(pairs.roles)}"
                )

    def __repr__(self) -> str:
        return f"Circuit({', '.join(f'{head}@{role}' for head, role in self.roles.items())})"


def _read_head(key: object, argument: str) -> Head:
    node = read_node(key, argument)
    if not isinstance(node, Head):
        raise ValueError(f"{argument}: expected a head like '9.9', got {key!r}")
    return node
