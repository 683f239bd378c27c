"""Ablation over a circuit and over the model, from every source, against hooks on transformers."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from ablation_oracle import Edits, Replacement, effect, metric
from compare import STORED, assert_close
from hook_oracle import HookedModel
from small_models import moved_pairs, ragged_pairs, shifted_pairs, tiny_model

from ioi_fast import Circuit, PromptPairs, ablate
from ioi_fast.results.result import Result

EXACT = {"backend": "reference", "precision": "fp64"}

SOURCES = ["zero", "mean", "mean_by_form", "new"]
PROMPTS = {
    "ragged": ragged_pairs,
    "roles elsewhere": moved_pairs,
    "longer new": shifted_pairs,
    "shorter new": lambda seed: shifted_pairs(seed=seed).swapped(),
}
# Several heads at one role, at different roles, in every layer; one layer has a head left out.
ROLES = {"0.1": "S2", "0.2": "END", "1.0": "END", "1.1": "S2", "1.2": "S1", "2.0": "END"}
CIRCUITS = {"the model": None, "some heads": ROLES, "one head": {"1.1": "S2"}, "no head": {}}
CIRCUITS["several roles"] = {"0.1": ("S1", "S2"), "1.1": ["END", "S2", "S1"], "2.0": "END"}
VARIANTS = [
    {},
    {"0.1": "S2"},
    {"1.0": "END", "2.0": "END"},
    {"1.1": "all"},
    {"mlp1": "all"},
    {"mlp0": "S2", "1.1": "S2", "2.2": "END"},
    {"0.1": "all", "0.2": "END", "mlp2": "END", "1.2": "S1"},
    {"0.1": ["S1", "S2"], "1.1": ("S2", "END"), "mlp1": ["END", "S1"]},
]


def prompts(name: str, seed: int) -> tuple[PromptPairs, PromptPairs]:
    """Pairs and, to take means over, pairs of another number whose new prompts are longer."""
    return PROMPTS[name](seed=seed), ragged_pairs(N=7, T=11, seed=seed + 1)


def cases() -> list[tuple[str, str, str, bool]]:
    """(prompts, circuit, source, whether over mean_pairs): those that are defined."""
    chosen = []
    for name, circuit, source, others in product(PROMPTS, CIRCUITS, SOURCES, (False, True)):
        # Token t of new can't stand for token t of orig where a role stands elsewhere.
        if source == "new" and name != "ragged":
            continue
        # No new prompt of these pairs reaches END of orig.
        if source.startswith("mean") and name == "shorter new" and not others:
            continue
        chosen.append((name, circuit, source, others))
    return chosen


def check(
    result: Result,
    hooked: HookedModel,
    pairs: PromptPairs,
    variants: list[dict],
    replacement: Replacement,
    base: Edits,
) -> None:
    """The result is the hooked model's, over a base run under these edits."""
    assert_close(result.base, metric(hooked, pairs, base), STORED, what="base")
    truth = [effect(hooked, pairs, replacement.variant(one), base) for one in variants]
    assert_close(result.values, torch.stack(truth), STORED)


@pytest.mark.parametrize("name, circuit, source, others", cases())
def test_ablate(name: str, circuit: str, source: str, others: bool) -> None:
    model, roles = tiny_model(seed=31), CIRCUITS[circuit]
    pairs, other_pairs = prompts(name, seed=32)
    mean_pairs = other_pairs if others else None
    base = "model" if roles is None else Circuit(roles)
    result = ablate(model, pairs, VARIANTS, source, base, mean_pairs, **EXACT)
    hooked = HookedModel(model)
    replacement = Replacement(hooked, pairs, source, mean_pairs)
    base_edits = [] if roles is None else replacement.circuit(roles)
    check(result, hooked, pairs, VARIANTS, replacement, base_edits)
    assert not result.values[0].any(), "an empty variant changes nothing, exactly"


def test_new_values_of_roles_that_stand_elsewhere() -> None:
    """The part of source="new" over the model that stays defined: role to role."""
    model = tiny_model(seed=33)
    variants = [one for one in VARIANTS if "all" not in one.values()]
    hooked = HookedModel(model)
    for name in ("roles elsewhere", "longer new", "shorter new"):
        pairs, _ = prompts(name, seed=34)
        result = ablate(model, pairs, variants, "new", **EXACT)
        check(result, hooked, pairs, variants, Replacement(hooked, pairs, "new"), [])


@pytest.mark.parametrize("source", SOURCES)
def test_ablate_with_other_settings(source: str) -> None:
    """Two layers of four narrow heads, untied, scores scaled by layer."""
    shape = {"n_layer": 2, "n_head": 4, "n_embd": 16}
    flags = {"tie_word_embeddings": False, "scale_attn_by_inverse_layer_idx": True}
    model = tiny_model(seed=35, **shape, **flags)
    pairs, mean_pairs = prompts("ragged", seed=36)
    roles = {"0.3": "S2", "0.0": "S1", "1.3": "END", "1.1": "END"}
    variants = [{"0.3": "S2"}, {"1.3": "END", "1.1": "END"}, {"mlp0": "END"}]
    result = ablate(model, pairs, variants, source, Circuit(roles), mean_pairs, **EXACT)
    hooked = HookedModel(model)
    replacement = Replacement(hooked, pairs, source, mean_pairs)
    check(result, hooked, pairs, variants, replacement, replacement.circuit(roles))


@pytest.mark.parametrize("source", SOURCES)
def test_what_the_circuit_leaves_out_is_ablated_already(source: str) -> None:
    model = tiny_model(seed=37)
    pairs, mean_pairs = prompts("ragged", seed=38)
    variants = [{"2.2": "END"}, {"2.2": "all"}, {"1.1": "S1"}]
    result = ablate(model, pairs, variants, source, Circuit(ROLES), mean_pairs, **EXACT)
    assert not result.values.any()


def test_the_sources_differ() -> None:
    """What the oracle tells apart is far above the tolerance."""
    model = tiny_model(seed=39)
    pairs, mean_pairs = prompts("ragged", seed=40)
    bases = [
        ablate(model, pairs, [{}], source, Circuit(ROLES), means, **EXACT).base
        for source in SOURCES
        for means in ([None, mean_pairs] if source.startswith("mean") else [None])
    ]
    for first in range(len(bases)):
        for second in range(first):
            assert (bases[first] - bases[second]).abs().max() > 1e-3
