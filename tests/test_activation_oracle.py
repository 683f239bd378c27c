"""Activation patches of listed heads and of the residual stream, against hooks on transformers."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from ablation_oracle import Edits, Role, aligner, cells, effect
from compare import STORED, assert_close
from hook_oracle import HookedModel, Place, put
from small_models import moved_pairs, ragged_pairs, shifted_pairs, tiny_model
from torch import Tensor

from ioi_fast import PromptPairs, activation_patch

EXACT = {"backend": "reference", "precision": "fp64"}

PROMPTS = {
    "ragged": ragged_pairs,
    "roles elsewhere": moved_pairs,
    "longer new": shifted_pairs,
    "shorter new": lambda seed: shifted_pairs(seed=seed).swapped(),
}
# Token t of new stands for token t of orig only where no role stands elsewhere.
CASES = [(name, role) for name in PROMPTS for role in ("END", "S2", "S1")]
CASES += [("ragged", role) for role in (None, 3, "each")]

# Groups within a layer, over layers, and one whose heads are not in order.
HEADS = ["0.1", (2, 2), ["1.0", "1.2"], ["2.1", "0.0", "1.1"]]
GROUPS = [["0.1"], ["2.2"], ["1.0", "1.2"], ["2.1", "0.0", "1.1"]]


class Oracle:
    """Effects of patching places of the hooked model with the new run's values."""

    def __init__(self, hooked: HookedModel, pairs: PromptPairs) -> None:
        self.hooked, self.pairs = hooked, pairs
        _, self.new = hooked.run(pairs.new)

    def effects(self, places: Iterable[tuple[Place, slice]], position: Role) -> Tensor:
        """[N], or [T, N] for position="each"."""
        places = list(places)
        if position != "each":
            return effect(self.hooked, self.pairs, self._edits(places, position))
        tokens = range(self.pairs.orig.shape[1])
        return torch.stack(
            [effect(self.hooked, self.pairs, self._edits(places, t)) for t in tokens]
        )

    def _edits(self, places: list[tuple[Place, slice]], role: Role) -> Edits:
        where, align = cells(self.pairs, role), aligner(self.pairs, role)
        return [(place, put(where, columns, align(self.new[place]))) for place, columns in places]


@pytest.mark.parametrize("name, position", CASES)
@pytest.mark.parametrize("site", ["z", "q", "k", "v"])
def test_listed_heads_and_groups(site: str, name: str, position: Role) -> None:
    model, pairs = tiny_model(seed=51), PROMPTS[name](seed=52)
    hooked = HookedModel(model)
    oracle = Oracle(hooked, pairs)
    truth = []
    for group in GROUPS:
        # A receiver's place is that head's own columns of q, k or v; of z its output place.
        suffix = "" if site == "z" else f".{site}"
        find = hooked.place if site == "z" else hooked.receiver
        truth.append(oracle.effects([find(head + suffix) for head in group], position))
    result = activation_patch(model, pairs, site, position, HEADS, **EXACT)
    assert_close(result.values, torch.stack(truth), STORED)
    assert_close(result.effect, torch.stack(truth).mean(-1), 1e-6, what="effect")


@pytest.mark.parametrize("name, position", CASES)
@pytest.mark.parametrize("site", ["resid_pre", "resid_mid", "attn_out", "mlp_out"])
def test_stream_sites(site: str, name: str, position: Role) -> None:
    model, pairs = tiny_model(seed=53), PROMPTS[name](seed=54)
    oracle = Oracle(HookedModel(model), pairs)
    truth = [oracle.effects([((site, layer), slice(None))], position) for layer in range(3)]
    result = activation_patch(model, pairs, site, position, **EXACT)
    assert_close(result.values, torch.stack(truth), STORED)
    assert_close(result.effect, torch.stack(truth).mean(-1), 1e-6, what="effect")


def test_a_group_is_patched_at_once() -> None:
    """The oracle tells a group from the sum of its heads."""
    model, pairs = tiny_model(seed=55), ragged_pairs(seed=56)
    for site in ("z", "q", "k", "v"):
        heads = ["0.0", "1.1", "2.1", ["2.1", "0.0", "1.1"]]
        values = activation_patch(model, pairs, site, None, heads, **EXACT).values
        assert (values[:3].sum(0) - values[3]).abs().max() > 1e-4 * values[3].abs().max()


def test_the_stream_after_attention_is_not_the_stream_before_it() -> None:
    model, pairs = tiny_model(seed=57), ragged_pairs(seed=58)
    sites = ("resid_pre", "resid_mid", "attn_out", "mlp_out")
    values = [activation_patch(model, pairs, site, "END", **EXACT).values for site in sites]
    for first in range(len(sites)):
        for second in range(first):
            assert (values[first] - values[second]).abs().max() > 1e-4
