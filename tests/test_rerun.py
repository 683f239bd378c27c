"""Ablations and activation patches of the fast path against the reference in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from compare import assert_exact, assert_sweep
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import moved_pairs, ragged_pairs, shifted_pairs, tiny_model

from ioi_fast import GPT2, Circuit, PromptPairs, Result, ablate, activation_patch
from ioi_fast.asked.sites import PATCHED, SITES
from ioi_fast.asked.sources import SOURCES

# The promise is 1e-4; these models reach 2e-5.
TOLERANCE = 4e-5
VARIANTS = [
    {"0.1": "END"},
    {"0.0": "all"},
    {"mlp1": "S2", "2.1": "END"},
    {},
    {"1.0": "S2", "1.1": "END", "mlp0": "all"},
    {"2.0": "all", "1.0": "END"},
]
CIRCUITS = {
    "model": "model",
    "three": Circuit({"0.1": "S2", "1.0": "END", "2.0": "END"}),
    "one": Circuit({"1.1": "S1"}),
    "empty": Circuit({}),
}


def with_forms(pairs: PromptPairs) -> PromptPairs:
    names = ("orig", "new", "answers", "wrong_answers", "positions", "new_positions")
    forms = [5, 2] * (len(pairs) // 2) + [5] * (len(pairs) % 2)
    return PromptPairs(**{name: getattr(pairs, name) for name in names}, forms=forms)


def compare(call: Callable, model: GPT2, pairs: PromptPairs, *asked: object, **more: object):
    def ask(model: GPT2) -> Result:
        return call(model, pairs, *asked, **more, backend="reference", precision="fp64")

    truth = ask(model)
    fast = call(model, pairs, *asked, **more, backend="cpu")
    assert fast.backend.startswith("cpu/") and fast.senders == truth.senders
    assert fast.values.shape == truth.values.shape
    assert_exact(fast.values, truth.values, model, lambda other: ask(other).values, TOLERANCE)
    assert (fast.base - truth.base).abs().max() <= 1e-5 * truth.base.abs().max().clamp(min=1)
    return fast


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("base", list(CIRCUITS))
@pytest.mark.parametrize("prompts", [ragged_pairs, moved_pairs], ids=["ragged", "moved"])
def test_ablations(prompts: Callable, base: str, source: str) -> None:
    variants, pairs = VARIANTS, with_forms(prompts())
    if prompts is moved_pairs and source == "new":
        with pytest.raises(ValueError, match=r"source='new' at all positions .* token to token"):
            ablate(tiny_model(), pairs, VARIANTS, source, CIRCUITS[base])
        # What stays defined: role to role, over the model.
        base, variants = "model", [one for one in VARIANTS if "all" not in one.values()]
    fast = compare(ablate, tiny_model(), pairs, variants, source, CIRCUITS[base])
    assert not fast.values[variants.index({})].any(), "an empty variant changes nothing"


@pytest.mark.parametrize("source", ["mean", "mean_by_form"])
def test_means_over_other_prompts(source: str) -> None:
    pairs, others = with_forms(ragged_pairs(5, 7)), with_forms(ragged_pairs(9, 9, seed=3))
    for base in ("model", CIRCUITS["three"]):
        compare(ablate, tiny_model(), pairs, VARIANTS, source, base, mean_pairs=others)


@pytest.mark.parametrize("source", ["zero", "mean", "new"])
def test_new_prompts_of_other_length(source: str) -> None:
    variants = [{"0.1": "END"}, {"1.0": "S2", "mlp1": "END"}, {"2.1": "S1"}]
    compare(ablate, tiny_model(), shifted_pairs(), variants, source)


@pytest.mark.parametrize("site", PATCHED)
@pytest.mark.parametrize("position", ["END", "S2", 3, "each", None])
def test_activation_patches(site: str, position: object) -> None:
    compare(activation_patch, tiny_model(), ragged_pairs(), site, position)


@pytest.mark.parametrize("site", PATCHED)
@pytest.mark.parametrize("prompts", [moved_pairs, shifted_pairs], ids=["moved", "shifted"])
def test_activation_patches_of_roles_that_stand_elsewhere(prompts: Callable, site: str) -> None:
    for role in ("S2", "END"):
        compare(activation_patch, tiny_model(), prompts(), site, role)


@pytest.mark.parametrize("site", [site for site in PATCHED if SITES[site].of_heads])
def test_groups_of_heads(site: str) -> None:
    heads = ["2.1", ["0.1", "1.2"], ["0.0", "0.2", "2.0"]]
    for position in ("each", "S2"):
        compare(activation_patch, tiny_model(), ragged_pairs(), site, position, heads)


@pytest.mark.parametrize("metric", ["prob", "rank", "kl", "accuracy"])
def test_other_metrics(metric: str) -> None:
    tolerant = {"rank": 0, "accuracy": 0}.get(metric, TOLERANCE)
    for base in ("model", CIRCUITS["three"]):
        asked = ([{"0.1": "all"}, {"mlp2": "END"}], "zero", base)
        truth, fast = (
            ablate(tiny_model(), ragged_pairs(), *asked, metric=metric, **how)
            for how in ({"backend": "reference", "precision": "fp64"}, {"backend": "cpu"})
        )
        assert (fast.values - truth.values).abs().max() <= tolerant * truth.values.abs().max()


NODES = st.sampled_from(["0.0", "0.1", "0.2", "1.0", "1.1", "2.0", "2.2", "mlp0", "mlp1", "mlp2"])
VARIANT = st.dictionaries(NODES, st.sampled_from(["END", "S2", "S1", "all"]), max_size=5)
HEADS = st.sampled_from(["0.0", "0.1", "1.0", "1.1", "1.2", "2.0", "2.1"])


@settings(max_examples=60)
@given(
    prompts=st.sampled_from([ragged_pairs, moved_pairs]),
    variants=st.lists(VARIANT, min_size=1, max_size=6, unique_by=lambda v: frozenset(v.items())),
    circuit=st.none() | st.dictionaries(HEADS, st.sampled_from(["END", "S2", "S1"]), max_size=5),
    source=st.sampled_from(["zero", "mean", "new"]),
    seed=st.integers(0, 3),
)
def test_any_ablations(
    prompts: Callable, variants: list, circuit: dict | None, source: str, seed: int
) -> None:
    base = "model" if circuit is None else Circuit(circuit)
    everywhere = circuit is not None or any("all" in one.values() for one in variants)
    if prompts is moved_pairs and source == "new" and everywhere:
        with pytest.raises(ValueError, match=r"source='new' at all positions .* token to token"):
            ablate(tiny_model(seed=seed), prompts(seed=seed), variants, source, base)
        return
    compare(ablate, tiny_model(seed=seed), prompts(seed=seed), variants, source, base)


def test_budgets_and_blocks_change_no_value() -> None:
    model, pairs = tiny_model(), ragged_pairs(N=9)
    whole = ablate(model, pairs, VARIANTS, base=CIRCUITS["three"], backend="cpu")
    least = 10**6
    with pytest.raises(ValueError, match="max_memory must be at least") as refused:
        ablate(model, pairs, VARIANTS, base=CIRCUITS["three"], max_memory=1000, backend="cpu")
    least = int(str(refused.value).split("at least ")[1].split()[0])
    for budget in (least, 2 * least, 10 * least):
        some = ablate(
            model, pairs, VARIANTS, base=CIRCUITS["three"], max_memory=budget, backend="cpu"
        )
        assert_sweep(some.values, whole.values, 1e-5)


def test_an_all_position_source_that_does_not_match_is_refused() -> None:
    for base, variants in (("model", [{"0.1": "all"}]), (CIRCUITS["three"], [{"1.0": "END"}])):
        for backend in ("reference", "cpu"):
            with pytest.raises(ValueError, match="token to token"):
                ablate(tiny_model(), shifted_pairs(), variants, "new", base, backend=backend)


def test_mean_pairs_that_are_too_short_are_refused() -> None:
    for backend in ("reference", "cpu"):
        with pytest.raises(ValueError, match="reaches token"):
            ablate(
                tiny_model(),
                ragged_pairs(5, 9),
                [{"0.1": "S1"}, {"0.1": "all"}],
                mean_pairs=ragged_pairs(4, 7, seed=1),
                backend=backend,
            )
