"""Names of nodes: heads (9.6), MLPs (mlp3), senders, and how they are read.

A sender is a group of one or more nodes that are patched at once; most groups have one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ioi_fast.model.config import GPT2Config
from ioi_fast.outside.quoting import cut, quoted
from ioi_fast.outside.whole_numbers import whole_number

# 9.6 as the paper prints it; L9H6, a9.h6 and A9.6 as other tools do.
_NUMBER = r"([0-9]{1,9})"
HEAD = re.compile(rf"[LlAa]?{_NUMBER}[.][Hh]?{_NUMBER}|[Ll]{_NUMBER}[Hh]{_NUMBER}")
MLP = re.compile(rf"(?:mlp|MLP|m)\s?{_NUMBER}")


@dataclass(frozen=True, slots=True, order=True)
class Head:
    """An attention head; prints as 9.6.

    >>> str(Head.parse("L10H7"))
    '10.7'
    """

    layer: int
    head: int

    @classmethod
    def parse(cls, text: str) -> Head:
        """Reads 9.6, L9H6, a9.h6 or A9.6; raises ValueError for anything else."""
        match = HEAD.fullmatch(text.strip())
        if not match:
            raise ValueError(f"expected a head like '9.6', got {quoted(text)}")
        layer, head = (int(number) for number in match.groups() if number is not None)
        return cls(layer, head)

    def __str__(self) -> str:
        return f"{self.layer}.{self.head}"


@dataclass(frozen=True, slots=True, order=True)
class Mlp:
    """The MLP of a layer; prints as mlp3."""

    layer: int

    @classmethod
    def parse(cls, text: str) -> Mlp:
        """Reads mlp3, MLP 3 or m3; raises ValueError for anything else."""
        match = MLP.fullmatch(text.strip())
        if not match:
            raise ValueError(f"expected an MLP like 'mlp3', got {quoted(text)}")
        return cls(int(match[1]))

    def __str__(self) -> str:
        return f"mlp{self.layer}"


Node = Head | Mlp


@dataclass(frozen=True, slots=True)
class Sender:
    """One or more nodes whose outputs are patched at once; prints as 8.6+8.10."""

    nodes: tuple[Node, ...]

    @property
    def heads(self) -> tuple[Head, ...]:
        """The heads among the nodes."""
        return tuple(node for node in self.nodes if isinstance(node, Head))

    @property
    def mlps(self) -> tuple[Mlp, ...]:
        """The MLPs among the nodes."""
        return tuple(node for node in self.nodes if isinstance(node, Mlp))

    def __str__(self) -> str:
        return "+".join(str(node) for node in self.nodes)


def parse_node(value: object, config: GPT2Config, argument: str) -> Node:
    """A head or an MLP from "9.9", (9, 9), "mlp3" or a node; checked against the model's shape.

    Raises TypeError or ValueError naming the argument, what was expected and what came.
    """
    return check_node(read_node(value, argument), config, argument)


def read_node(value: object, argument: str) -> Node:
    """A head or an MLP from "9.9", (9, 9), "mlp3" or a node, of whatever model.

    Raises TypeError or ValueError naming the argument, what was expected and what came.
    """
    if isinstance(value, str):
        kind = Mlp if MLP.fullmatch(value.strip()) else Head
        try:
            return kind.parse(value)
        except ValueError:
            raise ValueError(
                f"{argument}: expected a head like '9.6' or an MLP like 'mlp3', got {quoted(value)}"
            ) from None
    numbers = [whole_number(part) for part in _numbers(value)]
    if numbers and None not in numbers:
        return Mlp(*numbers) if isinstance(value, Mlp) else Head(*numbers)
    raise TypeError(
        f"{argument}: expected a head like '9.6' or (9, 6), or 'mlp3', got {quoted(value)}"
    )


def _numbers(value: object) -> tuple:
    """What should be the whole numbers of a node; empty for what is no node."""
    if isinstance(value, Mlp):
        return (value.layer,)
    if isinstance(value, Head):
        return (value.layer, value.head)
    return value if isinstance(value, tuple) and len(value) == 2 else ()


def check_node(node: Node, config: GPT2Config, argument: str) -> Node:
    if not 0 <= node.layer < config.n_layer:
        raise ValueError(
            f"{argument}: layer {node.layer} of {node} is out of range: the model has "
            f"{config.n_layer} layers (0-{config.n_layer - 1})"
        )
    if isinstance(node, Head) and not 0 <= node.head < config.n_head:
        raise ValueError(
            f"{argument}: head {node.head} of {node} is out of range: a layer has "
            f"{config.n_head} heads (0-{config.n_head - 1})"
        )
    return node


def all_heads(config: GPT2Config) -> tuple[Sender, ...]:
    """Every head as a sender of its own, sender l·H+h."""
    return tuple(
        Sender((Head(layer, head),))
        for layer in range(config.n_layer)
        for head in range(config.n_head)
    )


def all_mlps(config: GPT2Config) -> tuple[Sender, ...]:
    """Every MLP as a sender of its own."""
    return tuple(Sender((Mlp(layer),)) for layer in range(config.n_layer))


def parse_senders(
    value: object, config: GPT2Config, argument: str = "senders"
) -> tuple[Sender, ...]:
    """Senders from "heads", "mlps" or a list whose entries are nodes or lists of nodes.

    Raises TypeError or ValueError for an empty list, an unknown node or equal entries.
    """
    if isinstance(value, str) and value in ("heads", "mlps"):
        return all_heads(config) if value == "heads" else all_mlps(config)
    like = "'heads' or a list like ['9.9', '10.0']"
    if argument == "senders":
        like = "'heads', 'mlps' or a list like ['9.9', 'mlp3', ['8.6', '8.10']]"
    entries = listed(value, f"{argument} must be {like}")
    senders = tuple(_parse_group(entry, config, argument) for entry in entries)
    check_distinct([frozenset(sender.nodes) for sender in senders], senders, argument)
    return senders


def split_senders(text: str) -> str | list[str | list[str]]:
    """Senders as they are typed, for `parse_senders`: "heads", "mlps", or nodes and groups with
    commas between them.

    >>> split_senders("8.6+8.10, 9.9")
    [['8.6', '8.10'], '9.9']
    """
    if text in ("heads", "mlps"):
        return text
    groups = [part.strip().split("+") for part in text.split(",")]
    return [group if len(group) > 1 else group[0] for group in groups]


def listed(value: object, expected: str) -> list:
    """What is listed, of any kind; raises TypeError for a set, which has no order, or a dict, which
    would lose its values, and ValueError for nothing."""
    if isinstance(value, (str, set, frozenset, Mapping)) or not isinstance(value, Iterable):
        raise TypeError(f"{expected}, got {quoted(value)}")
    entries = list(value)
    if not entries:
        raise ValueError(f"{expected}, got an empty list")
    return entries


def _parse_group(entry: object, config: GPT2Config, argument: str) -> Sender:
    if isinstance(entry, Sender):
        if not isinstance(entry.nodes, (tuple, list)):
            raise TypeError(f"{argument}: a Sender must hold a tuple of nodes, got {quoted(entry)}")
        entry = list(entry.nodes)
    if not isinstance(entry, list):
        return Sender((parse_node(entry, config, argument),))
    if not entry:
        raise ValueError(f"{argument}: a group must have at least one node, got []")
    nodes = tuple(parse_node(node, config, argument) for node in entry)
    check_distinct(nodes, nodes, argument)
    return Sender(nodes)


def check_distinct(keys: Sequence, entries: Sequence, argument: str) -> None:
    """Raises ValueError that names the first entry which is there twice."""
    seen = set()
    for key, entry in zip(keys, entries, strict=True):
        if key in seen:
            raise ValueError(f"{argument}: {cut(entry)} is there twice")
        seen.add(key)
