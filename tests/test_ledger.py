"""The ledger that a plan's memory is counted in, and the rows and slots of prompts."""

from __future__ import annotations

import pytest

from ioi_fast import GPT2Config
from ioi_fast.plan.memory import runs
from ioi_fast.plan.memory.ledger import BESIDE, Ledger
from ioi_fast.plan.memory.rows import Rows

CONFIG = GPT2Config(vocab_size=100, n_embd=8, n_layer=2, n_head=2, n_positions=16)
D, F = 8, 32


def test_a_ledger_keeps_the_most_that_was_held() -> None:
    ledger = Ledger()
    first = ledger.take(5)
    ledger.passing(4)
    ledger.give(first)
    ledger.take(3)
    assert (ledger.held, ledger.peak, ledger.peak_bytes) == (3, 9, 36 + BESIDE)
    with ledger.call():
        ledger.take(10)
    assert (ledger.held, ledger.peak) == (3, 13)


def test_rows_and_slots() -> None:
    uneven = Rows.of([range(1, 4), range(2, 4)])
    assert (uneven.rows, uneven.slots, uneven.unlike, uneven.aligned) == (5, 6, True, False)
    even = Rows.of([range(2, 4), range(2, 4)])
    assert (even.rows, even.slots, even.unlike, even.aligned) == (4, 4, False, True)
    assert Rows.up_to([2, 1]).slots == 6 and Rows.up_to([2, 1], tokens=5).slots == 10


@pytest.mark.parametrize(
    ("site", "everywhere", "share"), [("v", True, 1), ("k", False, 5 / 6), ("q", False, 2 / 6)]
)
def test_where_attention_differs(site: str, everywhere: bool, share: float) -> None:
    """The first token of a prompt attends to itself, whatever its key."""
    cells = Rows.of([range(4), range(2, 4)])
    assert cells.differing(site, everywhere) == pytest.approx(share)


def test_a_layer_of_a_clean_run() -> None:
    """q, k, v, z, resid_mid, the MLP's input and output are left; at END fewer rows of them."""
    tokens, ledger = Rows.up_to([3, 3]), Ledger()
    state = runs.layer(ledger, CONFIG, tokens, at_end=False)
    assert ledger.held == state.qkv + state.others == 8 * (3 * D + 3 * D + F)
    assert ledger.peak == ledger.held
    runs.give(ledger, state)
    assert ledger.held == 0
    at_end = runs.layer(Ledger(), CONFIG, tokens, at_end=True)
    assert (at_end.qkv, at_end.others) == (8 * 2 * D + 2 * D, 2 * (3 * D + F))
    replaced = runs.layer(Ledger(), CONFIG, tokens, False, {"z", "mlp_out"})
    assert replaced.others == state.others + 2 * 8 * D


def test_prompts_of_unlike_lengths_are_moved_to_slots() -> None:
    ledger = Ledger()
    state = runs.layer(ledger, CONFIG, Rows.up_to([3, 1]), at_end=False)
    assert state.qkv == 8 * 3 * D and state.others == 6 * (3 * D + F)
