"""Path patches under knock-outs: the fast path against the reference in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from compare import assert_exact
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import moved_pairs, ragged_pairs, shifted_pairs, tiny_model

from ioi_fast import GPT2, PromptPairs, Result, path_patch
from ioi_fast.asked.sources import SOURCES

SENDERS = ["0.0", "0.1", "mlp0", ["0.2", "1.1"], "1.0", "mlp1", "2.1", ["mlp0", "mlp2"]]
KNOCKED = {
    "heads at END": {"1.0": "END", "2.1": "END"},
    "a sender": {"0.1": "all"},
    "an MLP": {"mlp1": "END", "0.0": "S2"},
    "everywhere": {"mlp0": "all", "1.1": "all"},
}
RECEIVERS = ["1.0.q", "2.0.k", "2.2.v", "mlp1"]


def compare(model: GPT2, pairs: PromptPairs, **asked: object) -> None:
    def ask(model: GPT2) -> Result:
        true = {"backend": "reference", "precision": "fp64"}
        return path_patch(model, pairs, **asked, **true)

    truth = ask(model)
    fast = path_patch(model, pairs, **asked, backend="cpu")
    assert fast.backend.startswith("cpu/")
    assert_exact(fast.values, truth.values, model, lambda other: ask(other).values)
    assert (fast.base - truth.base).abs().max() <= 1e-5 * truth.base.abs().max().clamp(min=1)


def with_forms(pairs: PromptPairs) -> PromptPairs:
    names = ("orig", "new", "answers", "wrong_answers", "positions", "new_positions")
    forms = [3] * (len(pairs) - 2) + [8, 8]
    return PromptPairs(**{name: getattr(pairs, name) for name in names}, forms=forms)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("knocked", list(KNOCKED))
@pytest.mark.parametrize("receivers", ["logits", RECEIVERS], ids=["logits", "receivers"])
def test_every_sender(receivers: object, knocked: str, source: str) -> None:
    for between in ("mlps", "nothing"):
        compare(
            tiny_model(),
            with_forms(ragged_pairs()),
            senders=SENDERS,
            receivers=receivers,
            position="END",
            between=between,
            knock_out=KNOCKED[knocked],
            knock_out_source=source,
        )


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("position", ["END", "S2", "S1"])
@pytest.mark.parametrize("prompts", [moved_pairs, shifted_pairs], ids=["moved", "shifted"])
def test_roles_that_stand_elsewhere(prompts: Callable, position: str, source: str) -> None:
    for knock_out in ({"1.0": "END", "0.1": "S2"}, {"mlp1": "S2", "2.0": "S1"}):
        compare(
            tiny_model(),
            with_forms(prompts()),
            senders=SENDERS,
            receivers=RECEIVERS,
            position=position,
            knock_out=knock_out,
            knock_out_source=source,
        )


@pytest.mark.parametrize("source", ["zero", "mean", "new"])
def test_all_positions(source: str) -> None:
    for knock_out in ({"1.0": "END", "0.1": "S2"}, {"mlp1": "S2", "0.0": "S1"}):
        compare(
            tiny_model(),
            ragged_pairs(),
            senders=SENDERS,
            receivers=RECEIVERS,
            position=None,
            knock_out=knock_out,
            knock_out_source=source,
        )


def test_an_all_position_source_that_does_not_match_is_refused() -> None:
    for backend in ("reference", "cpu"):
        with pytest.raises(ValueError, match="token to token"):
            path_patch(
                tiny_model(),
                shifted_pairs(),
                knock_out={"0.1": "all"},
                knock_out_source="new",
                backend=backend,
            )


NODES = st.sampled_from(["0.0", "0.1", "1.0", "1.1", "2.0", "2.2", "mlp0", "mlp1", "mlp2"])
ROLES = st.sampled_from(["END", "S2", "S1", "all"])


@settings(max_examples=30)
@given(
    knock_out=st.dictionaries(NODES, ROLES, min_size=1, max_size=4),
    receivers=st.sampled_from(["logits", RECEIVERS, ["2.1.q"], ["mlp2", "1.2.k"]]),
    source=st.sampled_from(["zero", "mean", "new"]),
    position=st.sampled_from(["END", "S2", 3, None]),
    between=st.sampled_from(["mlps", "nothing"]),
)
def test_anything(knock_out, receivers, source, position, between) -> None:
    compare(
        tiny_model(seed=5),
        ragged_pairs(seed=6),
        senders=SENDERS,
        receivers=receivers,
        position=position,
        between=between,
        knock_out=knock_out,
        knock_out_source=source,
    )


def test_errors_name_the_arguments_of_the_call() -> None:
    """A knock-out's source is knock_out_source, and its means are over the new prompts."""
    long, short = ragged_pairs(2, 7), ragged_pairs(2, 5)
    pairs = PromptPairs(
        long.orig,
        short.new,
        long.answers,
        long.wrong_answers,
        positions={"END": long.end},
        new_positions={"END": short.end},
    )
    for backend in ("cpu", "reference"):
        asked = {"knock_out": {"0.0": "END"}, "backend": backend}
        with pytest.raises(ValueError, match=r"^knock_out_source: no new prompt reaches token 6"):
            path_patch(tiny_model(), pairs, **asked)
        asked = {"knock_out": {"0.0": "all"}, "knock_out_source": "new", "backend": backend}
        with pytest.raises(ValueError, match=r"^knock_out_source='new' at all positions"):
            path_patch(tiny_model(), pairs, **asked)
