"""Where ablated values come from: means over other prompts, by form, and knock-outs of new runs
whose prompts have another length; against loops over hooks on transformers.
"""

from __future__ import annotations

import pytest
import torch
from compare import assert_close
from hook_oracle import HookedModel, logit_diff, path_patched_logits, put
from small_models import ragged_pairs, shifted_pairs, tiny_model
from torch import Tensor

from ioi_fast import Circuit, PromptPairs, ablate, path_patch
from ioi_fast.ablation_source import MeanTable

EXACT = {"backend": "reference", "precision": "fp64"}
TOLERANCE = 3e-7
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


def cells(pairs: PromptPairs, role: str, run: str = "orig") -> Tensor:
    tokens = pairs.orig if run == "orig" else pairs.new
    if role == "all":
        return torch.ones(tokens.shape, dtype=torch.bool)
    roles = pairs.positions if run == "orig" else pairs.new_roles
    return torch.arange(tokens.shape[1]) == roles[role][:, None]


def mean_edits(
    hooked: HookedModel,
    pairs: PromptPairs,
    mean_pairs: PromptPairs,
    variant: dict,
    by_form: bool,
    run: str = "orig",
) -> list:
    """Edits that put means of mean_pairs' new run into a run of pairs."""
    _, clean = hooked.run(mean_pairs.new)
    T = (pairs.orig if run == "orig" else pairs.new).shape[1]
    edits = []
    for node, role in variant.items():
        place, columns = hooked.place(node)
        value = torch.full((len(pairs), T, clean[place].shape[-1]), torch.nan).double()
        for n in range(len(pairs)):
            members = [
                m
                for m in range(len(mean_pairs))
                if not by_form or mean_pairs.forms[m] == pairs.forms[n]
            ]
            table = means(clean[place], mean_pairs.new_end, members)[:T]
            value[n, : len(table)] = table
        # After END the mean may have no member; what stands there never matters.
        edits.append((place, put(cells(pairs, role, run), columns, value.nan_to_num(0.0))))
    return edits


@pytest.mark.parametrize("longer", [0, 3])
@pytest.mark.parametrize("source", ["mean", "mean_by_form"])
def test_means_over_other_prompts(source: str, longer: int) -> None:
    """mean_pairs of another number, other lengths, and forms that are large and not in a row."""
    model = tiny_model(seed=21)
    pairs = with_forms(ragged_pairs(4, 7, seed=22), [7, 10**15, 7, 3])
    others = ragged_pairs(9, 7 + longer, seed=23)
    mean_pairs = with_forms(others, [7, 3, 7, 10**15, 7, 8, 3, 7, 10**15])
    hooked = HookedModel(model)
    answers = (pairs.end, pairs.answers, pairs.wrong_answers)
    base = logit_diff(hooked.run(pairs.orig)[0], *answers)
    truth = []
    for variant in VARIANTS:
        edits = mean_edits(hooked, pairs, mean_pairs, variant, source == "mean_by_form")
        truth.append(logit_diff(hooked.run(pairs.orig, edits)[0], *answers) - base)
    result = ablate(model, pairs, VARIANTS, source, mean_pairs=mean_pairs, **EXACT)
    assert_close(result.values, torch.stack(truth), TOLERANCE)
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


def new_edits(hooked: HookedModel, pairs: PromptPairs, variant: dict, run: str) -> list:
    """Edits that put each prompt's own new-run values in, role for role."""
    _, clean = hooked.run(pairs.new)
    edits = []
    for node, role in variant.items():
        place, columns = hooked.place(node)
        if run == "new":
            value = clean[place]
        else:
            T = pairs.orig.shape[1]
            value = torch.zeros(len(pairs), T, clean[place].shape[-1], dtype=torch.float64)
            for n in range(len(pairs)):
                at = int(pairs.positions[role][n])
                value[n, at] = clean[place][n, int(pairs.new_roles[role][n])]
        edits.append((place, put(cells(pairs, role, run), columns, value)))
    return edits


@pytest.mark.parametrize("source", ["mean", "mean_by_form", "zero", "new"])
@pytest.mark.parametrize("receivers", [None, ["1.0.k", "1.2.v", "mlp1", "2.2.q"]])
def test_knock_outs_of_prompts_of_other_length(receivers: list | None, source: str) -> None:
    """In the new run a knock-out acts at new's own role positions."""
    model, pairs = tiny_model(seed=24), shifted_pairs(N=5, seed=25)
    hooked = HookedModel(model)
    knock_out = {"0.2": "END", "1.0": "S2", "mlp1": "S1"}
    if source != "new":
        knock_out["0.0"] = "all"

    def edits(run: str) -> list:
        if source == "new":
            return new_edits(hooked, pairs, knock_out, run)
        if source == "zero":
            _, clean = hooked.run(pairs.orig if run == "orig" else pairs.new)
            zeros = {place: torch.zeros_like(value) for place, value in clean.items()}
            return [
                (place, put(cells(pairs, role, run), columns, zeros[place]))
                for node, role in knock_out.items()
                for place, columns in [hooked.place(node)]
            ]
        return mean_edits(hooked, pairs, pairs, knock_out, source == "mean_by_form", run)

    def align(value: Tensor) -> Tensor:
        out = value.new_zeros(len(pairs), pairs.orig.shape[1], value.shape[-1])
        rows = torch.arange(len(pairs))
        out[rows, pairs.end] = value[rows, pairs.new_end]
        return out

    answers = (pairs.end, pairs.answers, pairs.wrong_answers)
    senders, truth = ["0.1", "mlp0", ["1.1", "0.0"]], []
    for sender in (["0.1"], ["mlp0"], ["1.1", "0.0"]):
        base, patched = path_patched_logits(
            hooked,
            pairs.orig,
            pairs.new,
            sender,
            receivers,
            cells(pairs, "END"),
            align,
            "mlps",
            edits,
        )
        truth.append(logit_diff(patched, *answers) - logit_diff(base, *answers))
    result = path_patch(
        model,
        pairs,
        senders,
        receivers or "logits",
        knock_out=knock_out,
        knock_out_source=source,
        **EXACT,
    )
    assert_close(result.values, torch.stack(truth), TOLERANCE)
    assert_close(result.base, logit_diff(base, *answers), TOLERANCE, what="base")


def test_new_values_everywhere_need_prompts_of_equal_length() -> None:
    model, pairs = tiny_model(), shifted_pairs()
    with pytest.raises(ValueError, match="source='new' at all positions matches token to token"):
        ablate(model, pairs, [{"0.1": "all"}], "new", **EXACT)
    with pytest.raises(ValueError, match="source='new' at all positions matches token to token"):
        ablate(model, pairs, [{}], "new", Circuit({"0.1": "END"}), **EXACT)
