"""Roles at a distance from others, and the sign test."""

from __future__ import annotations

import math

import pytest
import torch
from small_models import ragged_pairs, shifted_pairs

from ioi_fast.ioi.roles import distant, with_roles
from ioi_fast.ioi.significance import counting, sign_test


def test_a_role_at_a_distance_stands_there_in_both_prompts() -> None:
    pairs = shifted_pairs()
    found = with_roles(pairs, ["S2", "END-1", "S1+2"])
    assert found.roles == (*pairs.roles, "END-1", "S1+2")
    assert torch.equal(found.positions["END-1"], pairs.end - 1)
    assert torch.equal(found.new_roles["S1+2"], pairs.new_roles["S1"] + 2)
    assert with_roles(pairs, pairs.roles) is pairs
    same = with_roles(ragged_pairs(), ["END-1"])
    assert same.new_positions is None


@pytest.mark.parametrize(
    ("role", "message"),
    [
        ("IO", "the prompts have no role 'IO', only END, S2, S1, and tokens at a distance"),
        ("END-0", "the prompts have no role 'END-0'"),
        ("IO+1", "the prompts have no role 'IO\\+1'"),
        ("END+1", "END\\+1 must stand within each prompt, from 0 to 6 in prompt 0, got 7"),
        ("S1-2", "S1-2 must stand within each prompt, from 0 to 6 in prompt 0, got -1"),
    ],
)
def test_roles_that_no_prompt_has_are_refused(role: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        with_roles(ragged_pairs(), [role])


def test_names_of_distances() -> None:
    assert [distant("END", d) for d in (-2, 0, 3)] == ["END-2", "END", "END+3"]


def test_the_sign_test_is_the_binomial_distribution() -> None:
    values = torch.ones(11, 10)
    for row in range(11):
        values[row, :row] = -1
    tail = [sum(math.comb(10, k) for k in range(min(r, 10 - r) + 1)) / 2**10 for r in range(11)]
    assert sign_test(values) == pytest.approx([min(1.0, 2 * one) for one in tail])
    with_zeros = torch.cat([values, torch.zeros(11, 5)], 1)
    assert sign_test(with_zeros) == sign_test(values)
    assert sign_test(torch.zeros(1, 4)) == [1.0]


def test_what_counts_is_large_and_of_one_sign() -> None:
    """With three tried the level is a third: eight signs alike are 0.0078, seven of eight 0.07."""
    values = torch.tensor([[1.0] * 8, [1.0] * 7 + [-1.0], [1.0] * 8])
    effects = torch.tensor([-0.5, 0.9, 0.1])
    assert counting(values, effects, 0.5, 0.05)[0] == [True, False, False]
    assert counting(values, effects, 0.1, 0.05)[0] == [True, False, True]
    assert counting(values, effects, 0.5, 0.02)[0] == [False, False, False]
    assert counting(values[:1], effects[:1], 0.5, 0.02)[0] == [True]


def test_the_sign_test_of_many_prompts() -> None:
    """Beyond what floats hold it goes on as before, and near the normal distribution."""
    for total, fewer in ((999, 460), (1001, 460), (4000, 1900)):
        values = torch.ones(1, total)
        values[0, :fewer] = -1
        z = (total - 2 * fewer - 1) / total**0.5
        assert sign_test(values)[0] == pytest.approx(math.erfc(z / 2**0.5), rel=0.02)
    assert 0 <= sign_test(torch.ones(1, 5000))[0] < 1e-300
