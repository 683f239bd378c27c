"""The sites of a layer, a row each, and receivers: what a path leads to (9.9.q, mlp5)."""

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
from ioi_fast.model.config import GPT2Config
from ioi_fast.outside.quoting import quoted

_RECEIVER = re.compile(r"(.+)[.]([qkv])")
# Where in its layer a site stands.
BEFORE, IN_HEADS, BETWEEN, MLP_OUTPUT = range(4)


@dataclass(frozen=True, slots=True)
class Site:
    """A place in a layer where a run can have another value.

    It stands before the attention, in its heads, between them and the MLP, or is the MLP's output.
    """

    name: str
    at: int
    patched: bool  # `activation_patch` takes it
    received: bool  # paths lead to it
    by_slots: bool = False  # runs have it as [N, T, H, K], all others by rows
    spreads: bool = False  # changed at one token it changes what all later ones read

    @property
    def of_heads(self) -> bool:
        """Whether each head has its own; else it is as wide as the residual stream."""
        return self.at == IN_HEADS


SITES = {
    site.name: site
    for site in (
        Site("z", IN_HEADS, patched=True, received=False),
        Site("q", IN_HEADS, patched=True, received=True, by_slots=True),
        Site("k", IN_HEADS, patched=True, received=True, by_slots=True, spreads=True),
        Site("v", IN_HEADS, patched=True, received=True, by_slots=True, spreads=True),
        Site("resid_pre", BEFORE, patched=True, received=False),
        Site("resid_mid", BETWEEN, patched=True, received=False),
        Site("attn_out", BETWEEN, patched=True, received=False),
        Site("mlp_in", BETWEEN, patched=False, received=True),
        Site("mlp_out", MLP_OUTPUT, patched=True, received=False),
    )
}
PATCHED = tuple(site.name for site in SITES.values() if site.patched)
INPUTS = tuple(site.name for site in SITES.values() if site.received and site.of_heads)


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
