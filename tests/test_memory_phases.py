"""What a plan counts of the phases of a block, on sizes that are counted by hand."""

from __future__ import annotations

from collections import Counter

import pytest

from ioi_fast import GPT2Config
from ioi_fast.plan.memory import clean_runs
from ioi_fast.plan.memory.clean_runs import Beside, Held
from ioi_fast.plan.memory.differences import Layer
from ioi_fast.plan.memory.room import BESIDE, Room
from ioi_fast.plan.memory.rows import Rows

CONFIG = GPT2Config(vocab_size=100, n_embd=8, n_layer=2, n_head=2, n_positions=16)
D, F = 8, 32
EVEN, UNEVEN = Rows.up_to([3, 3]), Rows.up_to([3, 1])


def test_what_stays_is_beside_every_later_phase() -> None:
    held = Held()
    held.phase(9)
    held.keep(5)
    assert (held.floats, held.peak) == (5, 9)
    held.phase(10)
    assert (held.floats, held.peak) == (5, 15)


def test_rows_and_slots() -> None:
    uneven = Rows.of([range(1, 4), range(2, 4)])
    assert (uneven.rows, uneven.slots, uneven.moved, uneven.aligned) == (5, 6, 6, False)
    even = Rows.of([range(2, 4), range(2, 4)])
    assert (even.rows, even.slots, even.moved, even.aligned) == (4, 4, 0, True)
    assert (UNEVEN.rows, UNEVEN.slots, UNEVEN.moved) == (6, 8, 8)


def test_a_layer_of_a_clean_run() -> None:
    """q, k, v, z, resid_mid, the MLP's input and output are there; at END fewer rows of them."""
    assert clean_runs.layer(CONFIG, EVEN) == (8 * 3 * D, 8 * (3 * D + 3 * D + F))
    qkv, floats = clean_runs.layer(CONFIG, EVEN, at_end=True)
    assert (qkv, floats) == (8 * 2 * D + 2 * D, 8 * 2 * D + 2 * D + 2 * (3 * D + F))
    assert clean_runs.layer(CONFIG, EVEN, replaced=2)[1] == 8 * (6 * D + F) + 2 * 2 * 8 * D


def test_prompts_of_unlike_lengths_are_moved_to_slots() -> None:
    assert clean_runs.layer(CONFIG, UNEVEN) == (8 * 3 * D, 8 * 3 * D + 6 * (3 * D + F))


def test_a_walk_keeps_what_is_read_later() -> None:
    """A layer beside its residual before and after; of the first one q, k, v and 7 floats stay."""
    held = Held()
    clean_runs.walk(held, CONFIG, EVEN, 5, lambda at: Beside(0, 7 * (at == 0), 0, at == 0))
    assert held.floats == 7 + 8 * 3 * D
    assert held.peak == 5 + 7 + 8 * (2 * D + 6 * D + F)


@pytest.mark.parametrize(
    ("begun", "heads", "put", "parts"),
    [
        (3, 2, {}, 4),  # normalised, q, k, v; or q, k, v, z
        (3, 2, {"v": 1}, 5),  # v twice
        (3, 2, {"mlp_out": 1}, 4),  # out, rows that differ, their change, its place
        (3, 2, {"mlp_in": 1}, 5),
        (3, 2, {"resid_pre": 1}, 5),
        (0, 0, {"resid_mid": 1}, 1),
    ],
)
def test_a_layer_of_differences(begun: int, heads: int, put: dict, parts: int) -> None:
    layer = Layer(CONFIG, EVEN, EVEN, 3, begun, heads, False, Counter(put))
    assert layer.floats == parts * 3 * EVEN.rows * D


def test_a_last_layer_of_differences() -> None:
    """Keys and values of all cells with the normalised input; all that follows is of END alone."""
    layer = Layer(CONFIG, EVEN, EVEN, 3, 3, 2, True, Counter())
    assert layer.floats == 4 * 3 * EVEN.rows * D


def test_what_a_process_grows_by() -> None:
    assert Room().bytes(10**6) == int(1.03 * 4 * 10**6) + BESIDE
    torch = Room.of(CONFIG, compiled=False, fused=False, threads=4)
    assert torch.bytes(10**6) > 1.75 * 4 * 10**6 + BESIDE
