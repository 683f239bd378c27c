"""Differences that take the place of a site's own in a rerun, and the table of a layer's heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ioi_fast.asked.receivers import Receiver
from ioi_fast.engine.rerun_cells import RerunCells
from ioi_fast.kernels.reference import FROZEN, LIVE
from ioi_fast.model.config import GPT2Config

# (site, layer), with the names of reference.run.Run; mlp_in is what the MLP reads of resid_mid.
Site = tuple[str, int]


@dataclass(frozen=True, slots=True, eq=False)
class Put:
    """Differences that take the place of a site's own at some cells of some variants.

    A first axis of 1 stands for all variants. `heads` are those that `where` names, None for all.
    Without a value there is no difference: the site is what it is in the original run. With `added`
    the value is added to the site's own instead, where no other is put.
    """

    where: Tensor  # bool [P or 1, M], at head sites [P or 1, M, H]
    value: Tensor | None  # [P or 1, M, D], at head sites [P or 1, M, H or 1, K]
    heads: tuple[int, ...] | None = None
    added: bool = False

    def onto(self, own: Tensor) -> Tensor:
        """The site with this in place."""
        where = self.where[..., None]
        if self.value is None:
            return own.masked_fill(where, 0)
        return torch.where(where, own + self.value if self.added else self.value, own)

    def variants(self, some: slice | Tensor) -> Put:
        """For some of the variants."""
        return self._of(lambda t: t if len(t) == 1 else t[some])

    def rows(self, rows: Tensor) -> Put:
        """At some of the cells."""
        return self._of(lambda t: t[:, rows])

    def of_heads(self, heads: Tensor) -> Put:
        """At some of the heads."""
        return self._of(lambda t: t if t.shape[2] in (1, len(heads)) else t[:, :, heads])

    def _of(self, part: Callable[[Tensor], Tensor]) -> Put:
        value = None if self.value is None else part(self.value)
        return replace(self, where=part(self.where), value=value)


Puts = Mapping[Site, Sequence[Put]]


def put_of(config: GPT2Config, receiver: Receiver, value_PCW: Tensor, patched_M: Tensor) -> Put:
    """What the first phase read of a receiver, [P, C, W], at the patched ones of M cells."""
    P, _, W = value_PCW.shape
    value_PMW = value_PCW.new_zeros(P, len(patched_M), W)
    value_PMW[:, patched_M] = value_PCW
    if not receiver.of_head:
        return Put(patched_M[None], value_PMW)
    head = receiver.node.head
    where_MH = patched_M[:, None] & (torch.arange(config.n_head) == head)
    return Put(where_MH[None], value_PMW[:, :, None], (head,))


# The table and the sources of attention_delta: int8 [P, N, T', H] and [X, N, T', H, K].
HeadTable = tuple[Tensor | None, Tensor | None]


def head_table(
    puts: Sequence[Put], shape: tuple[int, ...], cells: RerunCells, at_end: bool
) -> HeadTable:
    """What is put at z of a shape [P, M or N, H, K], each for all variants; the last one holds."""
    if not puts:
        return None, None
    codes = torch.full(shape[:3], LIVE, dtype=torch.int8)
    values: list[Tensor] = []
    for put in puts:
        codes.masked_fill_(put.where, FROZEN if put.value is None else len(values))
        if put.value is not None:
            values.append(put.value[0].expand(shape[1:]))
    slots = _at_end if at_end else cells.slots
    # Slots that no prompt fills are zero at first, which then is FROZEN.
    codes = slots(codes - FROZEN) + FROZEN
    if not values:
        return codes, None
    return codes, slots(torch.stack(values).flatten(2)).unflatten(-1, shape[2:])


def _at_end(rows: Tensor) -> Tensor:
    return rows[..., None, :]
