"""What a node can reach: the order in which the parts of layers read and write."""

from __future__ import annotations

from collections.abc import Sequence

from ioi_fast.asked.nodes import Head, Node, Sender
from ioi_fast.asked.receivers import Receiver


def place(node: Node) -> tuple[int, int]:
    """Where a node writes: (layer, 0) for a head, (layer, 1) for an MLP."""
    return (node.layer, 0 if isinstance(node, Head) else 1)


def first_reached(sender: Sender, receivers: Sequence[Receiver] | None, n_layer: int) -> int | None:
    """First layer with a receiver that a sender can reach; None if there is none.

    q, k and v are read before the heads of their layer write, an MLP's input after them.
    """
    if receivers is None:
        return n_layer
    start = min(place(node) for node in sender.nodes)
    layers = [
        r.node.layer
        for r in receivers
        if start < r.place and (start[0] < r.node.layer or not r.of_head)
    ]
    return min(layers, default=None)
