"""Positions: what names a cell of orig, which cell of new it matches, and what is refused."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy
import pytest
import torch
from compare import assert_sweep
from small_models import ragged_pairs, shifted_pairs, tiny_model

from ioi_fast import PromptPairs, path_patch
from ioi_fast.asked.positions import Position, parse_position


def refused(error: type[Exception], *parts: str):
    """Expects an error whose message holds all parts, in this order."""
    return pytest.raises(error, match="(?s)" + ".*".join(re.escape(part) for part in parts))


def shorter_new() -> PromptPairs:
    """Two prompts that end at 4 and 3 whose new prompts end at 2 and 3."""
    tokens = torch.arange(10).view(2, 5)
    return PromptPairs(
        tokens,
        tokens + 20,
        [0, 1],
        [2, 3],
        positions={"END": [4, 3], "S": [1, 0]},
        new_positions={"END": [2, 3], "S": [2, 1]},
    )


def test_a_role_stands_for_its_cells_in_both_runs() -> None:
    pairs = shifted_pairs(N=3, T=7)
    for role in ("END", "S2", "S1"):
        position = parse_position(role, pairs)
        assert position.name == role and not position.everywhere
        for run, tokens, at in (
            ("orig", pairs.orig, pairs.positions[role]),
            ("new", pairs.new, pairs.new_positions[role]),
        ):
            where = position.where(tokens, run)
            assert where.shape == tokens.shape and where.dtype == torch.bool
            assert where.nonzero().tolist() == [[n, int(t)] for n, t in enumerate(at)]


@pytest.mark.parametrize(
    ("value", "tokens", "name"),
    [
        (0, [0, 0, 0, 0], "0"),
        (6, [6, 6, 6, 6], "6"),
        (numpy.int64(3), [3, 3, 3, 3], "3"),
        (torch.tensor([6, 0, 2, 5]), [6, 0, 2, 5], "tokens[4]"),
    ],
)
def test_tokens_by_number(value: object, tokens: list[int], name: str) -> None:
    pairs = ragged_pairs(N=4, T=7)
    position = parse_position(value, pairs)
    assert position.name == name
    assert position.orig.tolist() == tokens and position.new.tolist() == tokens
    assert position.where(pairs.orig).nonzero().tolist() == [[n, t] for n, t in enumerate(tokens)]


def test_none_is_every_position() -> None:
    pairs = ragged_pairs(N=4, T=7)
    position = parse_position(None, pairs)
    assert position.everywhere and position.name == "all"
    assert position.where(pairs.orig).all() and position.where(pairs.orig).shape == (4, 7)


def test_aligned_moves_new_values_to_their_cells() -> None:
    """Values that say which prompt and token they are of, read off at the matching cells."""
    pairs = shifted_pairs(N=3, T=7)
    T_new = pairs.new.shape[1]
    value_new = (100 * torch.arange(3)[:, None] + torch.arange(T_new))[:, :, None, None]
    for role in pairs.roles:
        aligned = parse_position(role, pairs).aligned(value_new, 7)
        assert aligned.shape == (3, 7, 1, 1)
        for n in range(3):
            at, at_new = int(pairs.positions[role][n]), int(pairs.new_positions[role][n])
            assert int(aligned[n, at]) == 100 * n + at_new
    everywhere = Position("all", None, None).aligned(value_new, 7)
    assert torch.equal(everywhere, value_new[:, :7])


@pytest.mark.parametrize("value", [0, 2, torch.tensor([1, 3]), None], ids=str)
def test_tokens_match_no_tokens_where_a_role_stands_elsewhere(value: object) -> None:
    """Neither where new ends elsewhere nor where another role alone does."""
    with refused(ValueError, "position", "token to token", "END of prompt 0 stands at 4 in orig"):
        parse_position(value, shorter_new())
    plain = shorter_new().select([1])
    moved = replace(plain, new_positions={"END": [3], "S": [1]})
    with refused(ValueError, "S of prompt 0 stands at 0 in orig and at 1 in new; name a role"):
        parse_position(value[:1] if isinstance(value, torch.Tensor) else value, moved)
    alike = replace(plain, new_positions=plain.positions)
    token = torch.tensor([3]) if isinstance(value, torch.Tensor) else value
    assert parse_position(token, alike).everywhere == (value is None)


@pytest.mark.parametrize("value", [-1, 7, torch.tensor([0, 0, 7, 0]), torch.tensor([0, -2, 0, 0])])
def test_a_number_outside_the_prompts_is_refused(value: object) -> None:
    wrong = {7: "7", -1: "-1"}.get(value) if isinstance(value, int) else str(int(value[value != 0]))
    with refused(ValueError, "position must be from 0 to 6", f"got {wrong}"):
        parse_position(value, ragged_pairs(N=4, T=7))


@pytest.mark.parametrize(
    "value",
    [
        numpy.array([1, 2, 0, 3]),
        numpy.array([1, 2, 0, 3], dtype=numpy.uint8),
        numpy.array([3, 0, 2, 1])[::-1],
        torch.tensor([1, 2, 0, 3], dtype=torch.int32),
    ],
    ids=lambda value: str(value.dtype),
)
def test_integers_of_any_width_are_positions(value: object) -> None:
    position = parse_position(value, ragged_pairs(N=4, T=7))
    assert position.orig.tolist() == [1, 2, 0, 3] and position.orig.dtype == torch.int64
    assert position.name == "tokens[4]"


@pytest.mark.parametrize("value", [2**70, -(2**70)])
def test_a_number_beyond_64_bits_is_outside_too(value: int) -> None:
    with refused(ValueError, "position must be from 0 to 6", f"got {value}"):
        parse_position(value, ragged_pairs(N=4, T=7))


@pytest.mark.parametrize("role", ["end", "IO", "", "each", "all"])
def test_an_unknown_role_is_refused(role: str) -> None:
    with refused(ValueError, "here: the prompts have no role", repr(role), "END, S2, S1"):
        parse_position(role, ragged_pairs(), "here")


@pytest.mark.parametrize(
    ("value", "came"),
    [
        (1.0, "1.0"),
        (True, "True"),
        ([1, 2, 3, 4], "[1, 2, 3, 4]"),
        (numpy.array([1.0, 2.0, 3.0, 4.0]), "float64 [4]"),
        (numpy.array([1, 2, 3]), "int64 [3]"),
        (numpy.array([True, False, True, False]), "bool [4]"),
        (torch.tensor([1, 2, 3]), "torch.int64 [3]"),
        (torch.tensor(3), "torch.int64 []"),
        (torch.tensor([1.0, 2.0, 3.0, 4.0]), "torch.float32 [4]"),
        (torch.tensor([True, False, True, False]), "torch.bool [4]"),
        (torch.zeros(4, 1, dtype=torch.int64), "torch.int64 [4, 1]"),
    ],
)
def test_other_types_are_refused(value: object, came: str) -> None:
    with refused(TypeError, "position must be a role (END, S2, S1)", "array [4] of ints", came):
        parse_position(value, ragged_pairs(N=4, T=7))


@pytest.mark.parametrize("between", ["mlps", "nothing"])
@pytest.mark.parametrize("position", ["END", "LAST"])
def test_end_may_match_any_token_of_new(position: str, between: str) -> None:
    """A role at END takes the token of new at which it stands there.

    LAST is END in orig, and in new a token before, at or behind the place of orig's END.
    """
    model, plain = tiny_model(), shifted_pairs(N=4, T=7)
    last = torch.tensor([2, 5, 5, 6])
    assert (last < plain.end).any() and (last == plain.end).any() and (last > plain.end).any()
    pairs = PromptPairs(
        plain.orig,
        plain.new,
        plain.answers,
        plain.wrong_answers,
        positions={**plain.positions, "LAST": plain.end},
        new_positions={**plain.new_positions, "LAST": last},
    )
    senders = ["0.1", "2.2", "mlp1", ["mlp0", "1.1"], "mlp2"]
    arguments = {"senders": senders, "position": position, "between": between}
    truth = path_patch(model, pairs, backend="reference", precision="fp64", **arguments).values
    assert truth.any(1).all()
    assert_sweep(path_patch(model, pairs, backend="cpu", **arguments).values, truth, 2e-5)


def test_unsigned_positions_beyond_int64_are_quoted_as_too_large() -> None:
    huge = numpy.array([2**63 + 1] * 4, dtype=numpy.uint64)
    with pytest.raises(ValueError, match="position must be from 0 to 6, got 9223372036854775807"):
        parse_position(huge, ragged_pairs())
