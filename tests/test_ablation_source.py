"""Where ablated values come from: means over other prompts and by form, against loops over hooks on
transformers, and the requests that have no value to take.
"""

from __future__ import annotations

import pytest
import torch
from ablation_oracle import Replacement, effect
from compare import STORED, assert_close
from hook_oracle import HookedModel
from small_models import ragged_pairs, shifted_pairs, tiny_model
from torch import Tensor

from ioi_fast import Circuit, PromptPairs, ablate
from ioi_fast.asked.mean_table import MeanTable

EXACT = {"backend": "reference", "precision": "fp64"}
VARIANTS = [{"0.1": "END"}, {"mlp0": "all", "1.1": "S2"}, {"2.0": "all", "0.0": "S1"}]


def with_forms(pairs: PromptPairs, forms: list[int]) -> PromptPairs:
    names = ("orig", "new", "answers", "wrong_answers", "positions", "new_positions")
    return PromptPairs(**{name: getattr(pairs, name) for name in names}, forms=forms)


def means(clean: Tensor, end: Tensor, members: list[int]) -> Tensor:
    """Mean at each token over the members that reach it, [N, T, W] -> [T, W]; NaN where none."""
    rows = []
    for t in range(clean.shape[1]):
        reach = [clean[n, t] for n in members if t <= int(end[n])]
        empty = torch.full_like(clean[0, 0], torch.nan)
        rows.append(torch.stack(reach).mean(0) if reach else empty)
    return torch.stack(rows)


@pytest.mark.parametrize("longer", [0, 3])
@pytest.mark.parametrize("source", ["mean", "mean_by_form"])
def test_means_over_other_prompts(source: str, longer: int) -> None:
    """mean_pairs of another number, other lengths, and forms that are large and not in a row."""
    model = tiny_model(seed=21)
    pairs = with_forms(ragged_pairs(4, 7, seed=22), [7, 10**15, 7, 3])
    others = ragged_pairs(9, 7 + longer, seed=23)
    mean_pairs = with_forms(others, [7, 3, 7, 10**15, 7, 8, 3, 7, 10**15])
    hooked = HookedModel(model)
    replacement = Replacement(hooked, pairs, source, mean_pairs)
    truth = [effect(hooked, pairs, replacement.variant(variant)) for variant in VARIANTS]
    result = ablate(model, pairs, VARIANTS, source, mean_pairs=mean_pairs, **EXACT)
    assert_close(result.values, torch.stack(truth), STORED)
    own = ablate(model, pairs, VARIANTS, source, **EXACT)
    assert not torch.allclose(own.values, result.values, rtol=1e-3)


def test_means_that_are_too_short_are_refused_only_where_they_matter() -> None:
    model, pairs = tiny_model(), ragged_pairs(4, 7)
    short = ragged_pairs(4, 5, seed=1)
    assert int(short.new_end.max()) == 4
    near = ablate(model, pairs, [{"0.1": "S1"}], mean_pairs=short, **EXACT)
    assert near.values.any()
    for variant, token in (({"0.1": "END"}, 6), ({"mlp1": "all"}, 5)):
        with pytest.raises(ValueError, match=f"no prompt of mean_pairs reaches token {token} "):
            ablate(model, pairs, [variant], mean_pairs=short, **EXACT)
    with pytest.raises(ValueError, match="no prompt of mean_pairs reaches token"):
        ablate(model, pairs, [{}], base=Circuit({"0.1": "END"}), mean_pairs=short, **EXACT)


def test_a_mean_of_the_base_circuit_is_over_mean_pairs_too() -> None:
    """The empty circuit is every head ablated everywhere, with the same means."""
    model, pairs, others = tiny_model(), ragged_pairs(4, 7), ragged_pairs(6, 8, seed=5)
    everything = {f"{layer}.{head}": "all" for layer in range(3) for head in range(3)}
    circuit = ablate(model, pairs, [{}], base=Circuit({}), mean_pairs=others, **EXACT)
    ablated = ablate(model, pairs, [everything], mean_pairs=others, **EXACT)
    assert_close(ablated.base + ablated.values[0], circuit.base, 1e-6)


def test_a_table_of_means_by_loops() -> None:
    """Unsorted forms, ragged ends, NaN behind END: each cell is the mean of its members."""
    generator = torch.Generator().manual_seed(4)
    value = torch.randn(6, 5, 2, 3, generator=generator)
    end = torch.tensor([4, 2, 3, 0, 4, 1])
    value[torch.arange(5) > end[:, None]] = torch.nan
    group = torch.tensor([9, 0, 9, 10**16, 0, 9])
    table = MeanTable.of(value, end, group)
    assert len(table.mean) == 3, "one row per form that is there"
    asked = torch.tensor([10**16, 9, 0, 9])
    where = torch.tensor([[t <= last for t in range(5)] for last in (0, 4, 4, 1)])
    got = table.rows(asked, where, torch.tensor([4, 4, 4, 4]))
    for n, form in enumerate(asked.tolist()):
        members = [m for m in range(6) if int(group[m]) == form]
        expected = means(value.flatten(2), end, members).view(5, 2, 3)
        assert_close(got[n][where[n]], expected[where[n]], 1e-6)
    with pytest.raises(ValueError, match=r"reaches token 1 \(needed for prompt 0\)"):
        table.rows(asked, torch.ones(4, 5, dtype=torch.bool), torch.tensor([4, 4, 4, 4]))
    # The same cells behind END are not missed.
    table.rows(asked, torch.ones(4, 5, dtype=torch.bool), torch.tensor([0, 4, 4, 4]))


def test_new_values_everywhere_need_prompts_of_equal_length() -> None:
    model, pairs = tiny_model(), shifted_pairs()
    with pytest.raises(ValueError, match="source='new' at all positions matches token to token"):
        ablate(model, pairs, [{"0.1": "all"}], "new", **EXACT)
    with pytest.raises(ValueError, match="source='new' at all positions matches token to token"):
        ablate(model, pairs, [{}], "new", Circuit({"0.1": "END"}), **EXACT)
