"""The table of a layer's heads says the same as putting one thing after another onto z."""

from __future__ import annotations

import pytest
import torch
from compare import normal

from ioi_fast.engine.clean_run import Grid
from ioi_fast.engine.overwrites import Put, head_table
from ioi_fast.engine.rerun_cells import RerunCells
from ioi_fast.kernels.reference import FROZEN, by_table

P, H, K = 3, 4, 5


def rerun_cells_of(ends: list[int], first: int) -> RerunCells:
    end = torch.tensor(ends)
    whole = Grid.of(torch.zeros_like(end), end)
    return RerunCells.since(whole, torch.full_like(end, first))


def random_puts(rows: int, generator: torch.Generator) -> list[Put]:
    """Overlapping ones: of all variants, of single ones, one value for all heads, and none."""

    def where(variants: int) -> torch.Tensor:
        return torch.rand(variants, rows, H, generator=generator) < 0.4

    values = [torch.randn(1, rows, heads, K, generator=generator) for heads in (H, 1)]
    return [Put(where(1), values[0]), Put(where(P), None), Put(where(P), values[1])]


@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize("ends", [[6, 6, 6], [6, 3, 5]], ids=["alike", "ragged"])
def test_the_last_of_overlapping_puts_holds(ends: list[int], at_end: bool) -> None:
    generator, cells = torch.Generator().manual_seed(0), rerun_cells_of(ends, first=1)
    rows = len(ends) if at_end else len(cells.in_orig)
    own, puts = torch.randn(P, rows, H, K, generator=generator), random_puts(rows, generator)
    codes, sources = head_table(puts, own.shape, cells, at_end)
    slots = own[:, :, None] if at_end else cells.slots(own.flatten(2)).unflatten(-1, (H, K))
    found = by_table(slots, codes, sources)
    found = found[:, :, 0] if at_end else cells.rows(found.flatten(-2)).unflatten(-1, (H, K))
    for put in puts:
        own = put.onto(own)
    assert torch.equal(found, own)


def test_slots_without_a_token_are_not_computed() -> None:
    cells = rerun_cells_of([6, 3], first=1)
    rows = len(cells.in_orig)
    puts = [Put(torch.zeros(1, rows, H, dtype=torch.bool), torch.ones(1, rows, H, K))]
    codes, _ = head_table(puts, (P, rows, H, K), cells, False)
    assert bool((codes[:, cells.at < 0] == FROZEN).all())
    assert not bool((codes[:, cells.at >= 0] == FROZEN).any())


def test_nothing_put_needs_no_table() -> None:
    cells = rerun_cells_of([6, 3], first=1)
    assert head_table([], (P, len(cells.in_orig), H, K), cells, False) == (None, None)


def test_parts_of_a_put_keep_what_stands_for_all() -> None:
    where, value = normal(P, 6, H, seed=1) < 0, normal(1, 6, 1, K, seed=2)
    part = Put(where, value).variants(slice(1, 3)).rows(torch.tensor([0, 5]))
    part = part.of_heads(torch.tensor([2]))
    assert torch.equal(part.where, where[1:3][:, [0, 5]][:, :, [2]])
    assert torch.equal(part.value, value[:, [0, 5]])
    own = normal(2, 2, 1, K, seed=3)
    frozen = Put(part.where, None).variants(slice(0, 2)).onto(own)
    assert torch.equal(frozen == 0, part.where[..., None].expand_as(own))
