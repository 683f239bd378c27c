"""Receivers: what a path leads to, the q, k or v of a head or the input of an MLP (9.9.q, mlp5)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ioi_fast.asked.nodes import (
    HEAD,
    MLP,
    Head,
    Mlp,
    Node,
    check_distinct,
    check_node,
    listed,
    read_node,
)
from ioi_fast.asked.sites import SITES
from ioi_fast.model.config import GPT2Config
from ioi_fast.outside.quoting import quoted

_RECEIVER = re.compile(r"(.+)[.]([qkv])")


@dataclass(frozen=True, slots=True)
class Receiver:
    """What a path leads to: the q, k or v of a head, or the input of an MLP."""

    node: Node
    site: str  # "q", "k", "v" or "mlp_in"

    @property
    def of_head(self) -> bool:
        """Whether it is an input of a head, and not of an MLP."""
        return SITES[self.site].of_heads

    @property
    def place(self) -> tuple[int, int]:
        """When it is read: (layer, 0) before the layer's heads write, (layer, 1) after them."""
        return (self.node.layer, 0 if self.of_head else 1)

    def __str__(self) -> str:
        return str(self.node) if self.site == "mlp_in" else f"{self.node}.{self.site}"


def parse_receivers(value: object, config: GPT2Config) -> tuple[Receiver, ...] | None:
    """Receivers from a list like ["9.9.q", "mlp5"]; None stands for "logits".

    Raises TypeError or ValueError for an empty list, an unknown receiver or equal entries.
    """
    if isinstance(value, str) and value == "logits":
        return None
    entries = listed(value, "receivers must be 'logits' or a list like ['9.9.q', 'mlp5']")
    receivers = tuple(_parse_receiver(entry, config) for entry in entries)
    check_distinct(receivers, receivers, "receivers")
    return receivers


def split_receivers(text: str) -> str | list[str]:
    """Receivers as they are typed, for `parse_receivers`: "logits", or a list with commas.

    >>> split_receivers("9.9.q, mlp5")
    ['9.9.q', 'mlp5']
    """
    return text if text == "logits" else [part.strip() for part in text.split(",")]


def _parse_receiver(entry: object, config: GPT2Config) -> Receiver:
    receiver = read_receiver(entry, "receivers")
    check_node(receiver.node, config, "receivers")
    return receiver


def read_receiver(value: object, argument: str) -> Receiver:
    """A receiver from "9.9.q", "mlp5" or a Receiver, of whatever model.

    Raises TypeError or ValueError naming the argument, what was expected and what came.
    """
    if isinstance(value, Mlp):
        return Receiver(read_node(value, argument), "mlp_in")
    text = str(value) if isinstance(value, Receiver) else value
    if isinstance(text, str):
        match = _RECEIVER.fullmatch(text.strip())
        node, site = (match[1], match[2]) if match else (text, "mlp_in")
        kind, pattern = (Head, HEAD) if match else (Mlp, MLP)
        if pattern.fullmatch(node.strip()):
            return Receiver(kind.parse(node), site)
    raise ValueError(f"{argument}: expected a receiver like '9.9.q' or 'mlp5', got {quoted(value)}")
