"""What a Result says: means, standard errors, rankings, and JSON that any parser reads."""

from __future__ import annotations

import json
import math
from dataclasses import FrozenInstanceError, replace

import pytest
import torch
from small_models import ragged_pairs, tiny_model

from ioi_fast import ablate, pair_sweep, path_patch
from ioi_fast.results.result import Result, near_zero

# 3 senders, 4 prompts; means 2.5, −1, 0.
VALUES = torch.tensor([[1.0, 2.0, 3.0, 4.0], [-1.0, -1.0, -1.0, -1.0], [-2.0, 2.0, -2.0, 2.0]])
BASE = torch.tensor([2.0, 4.0, 6.0, 8.0])


def result(**changes: object) -> Result:
    whole = Result(
        values=VALUES,
        base=BASE,
        senders=("0.0", "0.1", "1.0"),
        shape=(3,),
        backend="reference",
        precision="fp32",
        provenance={"metric": "logit_diff"},
    )
    return replace(whole, **changes)


def test_effect_and_standard_error_by_hand() -> None:
    got = result()
    assert got.effect.tolist() == [2.5, -1.0, 0.0]
    # Variances with n − 1: (2.25 + 0.25 + 0.25 + 2.25)/3, 0, 16/3; each over 4 prompts.
    assert torch.allclose(got.stderr, torch.tensor([5 / 3, 0, 16 / 3]).sqrt() / 2, rtol=1e-6)
    assert torch.equal(got.relative, torch.tensor([0.5, -0.2, 0.0]))
    assert got.effect.dtype == got.stderr.dtype == got.relative.dtype == torch.float32


def test_effects_take_the_shape_of_the_places() -> None:
    values = torch.arange(24.0).view(6, 4)
    got = result(values=values, senders=tuple("abcdef"), shape=(2, 3))
    assert got.effect.shape == got.stderr.shape == got.relative.shape == (2, 3)
    assert got.effect[1, 2] == values[5].mean()
    nested = result(values=values.view(2, 3, 4), senders=tuple("abcdef"), shape=(2, 3))
    assert torch.equal(nested.effect, got.effect)


def test_means_are_taken_in_double() -> None:
    """10⁸ and 1 in turn: fp32 sums of these lose the ones."""
    values = torch.tensor([[1e8, 1.0, -1e8, 1.0] * 250])
    got = result(values=values, base=torch.ones(1000), senders=("0.0",), shape=(1,))
    assert got.effect.tolist() == [0.5]


def test_the_ranking_begins_with_the_largest_effect_of_either_sign() -> None:
    ranking = result().ranking()
    assert [sender for sender, _, _ in ranking] == ["0.0", "0.1", "1.0"]
    assert ranking[1] == ("0.1", -1.0, 0.0) and ranking[0].effect == 2.5
    lower = result(values=-VALUES).ranking()
    assert [(row.sender, row.effect) for row in lower[:2]] == [("0.0", -2.5), ("0.1", 1.0)]


def test_the_ranking_says_what_is_within_two_standard_errors_of_nothing() -> None:
    """2.5 is 3.9 of its errors, −1 has none, and 0 is nothing; of one prompt no error is known."""
    assert [row.clear for row in result().ranking()] == [True, True, False]
    wide = torch.tensor([[1.0, 2.0, 3.0, 4.0], [-1.0, 2.0, -3.0, 0.0], [9.0, -1.0, -1.0, 9.0]])
    rows = {row.sender: row for row in result(values=wide).ranking()}
    for row in rows.values():
        assert row.clear == (abs(row.effect) > 2 * row.stderr)
    assert [rows[sender].clear for sender in ("0.0", "0.1", "1.0")] == [True, False, False]
    alone = result(values=VALUES[:, :1], base=BASE[:1])
    assert not any(row.clear for row in alone.ranking())


def test_a_share_keeps_the_sign_of_its_effect() -> None:
    got = result(base=-BASE)
    assert torch.equal(got.relative, torch.tensor([0.5, -0.2, 0.0]))


@pytest.mark.parametrize("metric", ["kl", "rank"])
def test_some_metrics_have_no_share(metric: str) -> None:
    got = result(provenance={"metric": metric})
    assert got.relative is None and strict(got)["relative"] is None
    assert pair_sweep(tiny_model(), ragged_pairs(), metric=metric).relative is None


def test_a_callable_is_no_named_metric() -> None:
    """Its results have a share, whatever it is called."""

    def rank(logits: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        return logits[:, 0]

    got = path_patch(tiny_model(), ragged_pairs(), ["0.0"], metric=rank)
    assert got.provenance["metric"] == "rank (a callable)" and got.relative is not None


def test_one_prompt_has_no_standard_error() -> None:
    got = result(values=VALUES[:, :1], base=BASE[:1])
    assert got.effect.tolist() == [1.0, -1.0, -2.0]
    assert got.stderr.isnan().all() and got.stderr.shape == (3,)
    assert strict(got)["stderr"] is None


def strict(got: Result) -> dict:
    """Through a JSON that has no NaN, and back."""
    return json.loads(json.dumps(got.to_dict(), allow_nan=False))


def test_json_holds_everything() -> None:
    read = strict(result())
    assert read["senders"] == ["0.0", "0.1", "1.0"] and read["effect"] == [2.5, -1.0, 0.0]
    assert read["values"] == VALUES.tolist() and read["base"] == BASE.tolist()
    assert read["relative"] == pytest.approx([0.5, -0.2, 0.0])
    assert read["stderr"][1] == 0.0 and len(read["stderr"]) == 3
    assert (read["backend"], read["precision"]) == ("reference", "fp32")
    assert read["provenance"] == {"metric": "logit_diff"}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_json_says_null_for_what_is_not_finite(bad: float) -> None:
    values = VALUES.clone()
    values[1, 2] = bad
    read = strict(result(values=values))
    assert read["values"][1] == [-1.0, -1.0, None, -1.0]
    assert read["effect"][1] is None and read["effect"][0] == 2.5


def test_json_of_a_mean_base_of_zero() -> None:
    """KL has base 0 for every prompt: nothing is relative to it."""
    got = path_patch(tiny_model(), ragged_pairs(), ["0.0", "2.1"], metric="kl", backend="cpu")
    assert not got.base.any() and got.effect.all()
    assert got.relative is None and strict(got)["relative"] is None

    def nothing(logits: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        return 0 * logits[:, 0]

    got = path_patch(tiny_model(), ragged_pairs(), ["0.0", "2.1"], metric=nothing, backend="cpu")
    assert strict(got)["relative"] == [None, None]


def test_json_of_real_calls() -> None:
    model, pairs = tiny_model(), ragged_pairs()
    for got in (
        path_patch(model, pairs, backend="cpu"),
        path_patch(model, pairs.select([0]), knock_out={"0.1": "END"}, backend="reference"),
        ablate(model, pairs, [{}, {"mlp0": "all"}], backend="reference"),
    ):
        read = strict(got)
        assert read["senders"] == list(got.senders)
        assert read["provenance"]["versions"]["torch"] == torch.__version__


def test_provenance_names_weights_tokens_definition_and_direction() -> None:
    model, pairs = tiny_model(), ragged_pairs()
    first = path_patch(model, pairs, ["0.0"], backend="cpu", threads=1).provenance
    assert first["model"] == model.name and first["weight_hash"] == model.weight_hash()
    assert first["token_hash"] == pairs.token_hash() and first["prompts"] == len(pairs)
    assert (first["metric"], first["direction"], first["threads"]) == ("logit_diff", "noising", 1)
    assert first["definition"] == {
        "call": "path_patch",
        "receivers": "logits",
        "position": "END",
        "between": "mlps",
        "knock_out": [],
        "knock_out_source": None,
    }
    other = path_patch(
        model,
        pairs.swapped(),
        ["0.0"],
        ["1.1.q", "mlp1"],
        "S2",
        "nothing",
        "rank",
        {"0.2": "END", "mlp0": "all"},
        "zero",
        backend="reference",
    ).provenance
    assert other["direction"] == "denoising" and other["token_hash"] != first["token_hash"]
    assert other["metric"] == "rank"
    assert other["definition"] == {
        "call": "path_patch",
        "receivers": ["1.1.q", "mlp1"],
        "position": "S2",
        "between": "nothing",
        "knock_out": ["0.2@END", "mlp0@all"],
        "knock_out_source": "zero",
    }


def test_a_result_prints_short_and_can_not_be_changed() -> None:
    got = result()
    assert repr(got) == "Result(effect [3], 4 prompts, mean base 5, reference, fp32)"
    with pytest.raises(FrozenInstanceError):
        got.values = VALUES


def test_a_base_near_zero_is_one_that_cancels() -> None:
    assert not near_zero(BASE) and not near_zero(-BASE)
    assert near_zero(torch.tensor([3.0, -3.0, 1e-3])) and near_zero(torch.zeros(3))
    assert not near_zero(torch.tensor([3.0, -3.0, 0.1]))
