"""Answers worked out by hand, with the model and its two clean runs as micro_model.py derives them.

What follows starts from these values at END:
  after the heads of layer 0 ⟨7, 1⟩, after MLP 0 (−8, 0) ⟨−1, 1⟩, heads 1.0 and 1.1 write −7 and −1
  onto b: ⟨−1, −7⟩, MLP 1 writes (0, 8): ⟨−1, 1⟩. New writes: 0.0: −4 (was 2), 0.1: 2 (was −4), both
  MLPs nothing, 1.0: 26.4, 1.1: 5.
"""

from __future__ import annotations

import math

import pytest
import torch
from micro_model import CONFIG, E, P, Q, logit_difference, micro_model, micro_pairs

from ioi_fast import PromptPairs, ablate, activation_patch, attention, path_patch

BASE = 10.0
EXACT = {"backend": "reference", "precision": "fp64"}
BACKENDS = [EXACT, {"backend": "reference"}, {"backend": "cpu"}]
IDS = ["fp64", "fp32", "cpu"]
# Results are float32. In fp32 the neurons' 14 − 13 and 7 − 6, times 8, magnify rounding: 1.4 is
# 2e-8 off, and what is left of that after 10·1.4 − 13 depends on whether the product is rounded.
TOLERANCE = {"fp64": 1e-6, "fp32": 2e-5}


def check(result, *expected: float) -> None:
    """Logit differences of the patched runs, in the order of the senders."""
    assert result.values.shape == (len(expected), 1)
    allowed = TOLERANCE[result.precision] * BASE
    for name, got, want in zip(result.senders, result.values[:, 0].tolist(), expected, strict=True):
        assert abs(got - (want - BASE)) <= allowed, f"{name}: {got} for {want - BASE}"


@pytest.mark.parametrize("backend", BACKENDS, ids=IDS)
def test_the_base_runs(backend: dict) -> None:
    model, pairs = micro_model(), micro_pairs()
    assert path_patch(model, pairs, ["0.0"], **backend).base.tolist() == pytest.approx([BASE], 1e-5)
    swapped = path_patch(model, pairs.swapped(), ["0.0"], **backend).base.tolist()
    assert swapped == pytest.approx([logit_difference(1, 38.4)], 1e-5)
    # Logits −5, 5 and 0.
    prob = path_patch(model, pairs, ["0.0"], metric="prob", **backend).base.tolist()
    assert prob == pytest.approx([math.exp(5) / (math.exp(5) + math.exp(-5) + 1)], 1e-5)
    logits = model(torch.tensor([[P, E]]))[0, 1].tolist()
    assert logits == pytest.approx([-5, 5, 0], abs=1e-4)


@pytest.mark.parametrize("backend", BACKENDS, ids=IDS)
def test_each_head_to_the_logits_through_the_mlps(backend: dict) -> None:
    """Layer 1's heads stay at −8 together; both MLPs are recomputed.

    0.0: a of layer 0 is 5 − 4 = 1: ⟨1, 1⟩, neuron 10 − 13 off. ⟨1, 1 − 8⟩ = ⟨1, −7⟩, neuron
         7 − 6 = 1: ⟨1, 1⟩, difference 0.
    0.1: b is 5 + 2 = 7: ⟨7, 7⟩ → ⟨1, 1⟩, off. ⟨7, −1⟩ → v = −0.2: neuron 1 − 6 off. 5·(−0.2 − 1.4).
    1.0: b is 1 − 1 + 26.4: ⟨−1, 26.4⟩, off.
    1.1: b is 1 − 7 + 5: ⟨−1, −1⟩, neuron 5 − 6 off.
    """
    result = path_patch(micro_model(), micro_pairs(), **backend)
    assert result.effect.shape == (2, 2) and result.senders == ("0.0", "0.1", "1.0", "1.1")
    check(result, 0, -8, logit_difference(-1, 26.4), 0)


@pytest.mark.parametrize("backend", BACKENDS, ids=IDS)
def test_each_head_to_the_logits_alone(backend: dict) -> None:
    """MLPs keep (−8, 0) and (0, 8); the head's own write is all that changes ⟨−1, 1⟩.

    0.0: a less 6: ⟨−7, 1⟩ → 5·(0.2 + 1.4) = 8.   0.1: b plus 6: ⟨−1, 7⟩ → 8.
    1.0: b plus 33.4: ⟨−1, 34.4⟩.                  1.1: b plus 6: ⟨−1, 7⟩ → 8.
    """
    result = path_patch(micro_model(), micro_pairs(), between="nothing", **backend)
    check(result, 8, 8, logit_difference(-1, 34.4), 8)


@pytest.mark.parametrize("backend", BACKENDS, ids=IDS)
@pytest.mark.parametrize("between", ["mlps", "nothing"])
def test_mlps_to_the_logits(between: str, backend: dict) -> None:
    """mlp0: ⟨7, 1⟩ without its −8, then ⟨7, −7⟩. Recomputed, MLP 1 sees v = −1: 5 − 6 off, −10.
          Frozen, it adds 8: ⟨7, 1⟩ → −6.
    mlp1: ⟨−1, −7⟩ stays: 5·(−1.4 + 0.2) = −6 either way.
    """
    result = path_patch(micro_model(), micro_pairs(), "mlps", between=between, **backend)
    check(result, -10 if between == "mlps" else -6, -6)


@pytest.mark.parametrize("backend", BACKENDS, ids=IDS)
def test_groups_to_the_logits(backend: dict) -> None:
    """0.0+0.1: ⟨1, 7⟩, off, ⟨1, −1⟩, off: −10. Frozen: ⟨1 − 8, 7 − 8 + 8⟩ = ⟨−7, 7⟩: 10, as before.
    0.0+mlp0: ⟨1, 1⟩, ⟨1, −7⟩, MLP 1 on (or frozen): ⟨1, 1⟩: 0.
    0.1+mlp1: ⟨7, 7⟩, ⟨7, −1⟩, MLP 1 is 0: −8. Frozen: ⟨−1, 7⟩, ⟨−1, −1⟩: 0.
    """
    groups = [["0.0", "0.1"], ["0.0", "mlp0"], ["mlp1", "0.1"]]
    check(path_patch(micro_model(), micro_pairs(), groups, **backend), -10, 0, -8)
    frozen = path_patch(micro_model(), micro_pairs(), groups, between="nothing", **backend)
    check(frozen, 10, 0, 0)


@pytest.mark.parametrize("backend", BACKENDS, ids=IDS)
def test_a_head_to_the_queries_keys_and_values_of_another(backend: dict) -> None:
    """Sender 0.0. In pass C END enters layer 1 as ⟨1, 1⟩; pass D puts that query, key or value in.

    q: factor −1 + ½ − ½ = −1: weights 1/4 and 3/4, z = (−7 + 21)/4 = 3.5, writes 7: b = 1 − 1 + 7.
       ⟨−1, 7⟩, neuron off: 8.
    k: key 1 at END as at the first token: weights 1/2, z = 0: ⟨−1, 0⟩ → 5·√2.
    v: 6 + 13 = 19 at END: z = −21/4 + 19/4 = −½, writes −1: ⟨−1, −1⟩, 5 − 6 off: 0.
    all three: weights 1/2, z = (−7 + 19)/2 = 6, writes 12: ⟨−1, 12⟩.
    """
    for receivers, expected in (
        (["1.0.q"], 8),
        (["1.0.k"], 5 * math.sqrt(2)),
        (["1.0.v"], 0),
        (["1.0.q", "1.0.k", "1.0.v"], logit_difference(-1, 12)),
    ):
        result = path_patch(micro_model(), micro_pairs(), ["0.0"], receivers, "END", **backend)
        check(result, expected)


@pytest.mark.parametrize("backend", BACKENDS, ids=IDS)
def test_other_senders_to_the_queries(backend: dict) -> None:
    """0.1: ⟨7, 7⟩ → ⟨1, 1⟩, as 0.0. Both: ⟨1, 7⟩ → ⟨0.2, 1.4⟩, factor 0: weights 1/2, ⟨−1, 0⟩.

    With MLP 0 frozen: 0.0 gives ⟨−7, 1⟩ → factor 1.4 + 0.1 − 0.5 = 1, and both give ⟨−7, 7⟩ → 1, as
    in the original. 0.1 gives ⟨−1, 7⟩ → factor 0.2 + 0.7 − 0.5 = 0.4: odds 3^0.4 for the first
    token, z = 7·(1 − odds)/(1 + odds) = −1.51, b = 1 − 1 + 2z = −3.03, v = −1.34: MLP 1 is on.
    """
    senders = ["0.0", "0.1", ["0.0", "0.1"]]
    model, pairs = micro_model(), micro_pairs()
    result = path_patch(model, pairs, senders, ["1.0.q"], **backend)
    check(result, 8, 8, 5 * math.sqrt(2))
    frozen = path_patch(model, pairs, senders, ["1.0.q"], between="nothing", **backend)
    odds = 3**0.4
    b = 2 * 7 * (1 - odds) / (1 + odds)
    neuron = -5 * b / math.sqrt((1 + b * b) / 2) - 6
    check(frozen, 10, logit_difference(-1, b + 8 * neuron), 10)


@pytest.mark.parametrize("backend", BACKENDS, ids=IDS)
def test_a_head_to_the_input_of_an_mlp(backend: dict) -> None:
    """MLP 1 sees what pass C has after layer 1's heads; everything else is the original's.

    0.0: ⟨1, −7⟩ is as good as ⟨−1, −7⟩: 10 stays. 0.1: ⟨7, −1⟩ turns it off: ⟨−1, −7⟩ → −6.
    1.1: ⟨−1, −1⟩ turns it off. Frozen MLP 0: 0.0 gives ⟨−7, −7⟩, off.
    With 1.0.q besides, 0.1 writes 7 through 1.0 and the MLP stays off: ⟨−1, 7⟩ → 8.
    """
    model, pairs, senders = micro_model(), micro_pairs(), ["0.0", "0.1", "1.1"]
    check(path_patch(model, pairs, senders, ["mlp1"], "END", **backend), 10, -6, -6)
    frozen = path_patch(model, pairs, senders, ["mlp1"], "END", "nothing", **backend)
    check(frozen, -6, -6, -6)
    check(path_patch(model, pairs, ["0.1"], ["mlp1", "1.0.q"], "END", **backend), 8)


@pytest.mark.parametrize("backend", BACKENDS, ids=IDS)
def test_what_is_not_earlier_has_exactly_no_effect(backend: dict) -> None:
    model, pairs = micro_model(), micro_pairs()
    later = ["1.0", "1.1", "mlp1", ["1.0", "mlp1"]]
    receivers = ["1.0.q", "1.0.k", "1.0.v"]
    result = path_patch(model, pairs, [*later, "0.1"], receivers, "END", **backend)
    assert not result.values[:4].any() and result.values[4].any()
    assert not path_patch(model, pairs, ["mlp0", "0.0"], ["0.1.v"], "END", **backend).values.any()
    # At the first token nothing is written that attention, being frozen, would carry to END.
    assert not path_patch(model, pairs, position="FIRST", **backend).values.any()


def test_attention_by_hand() -> None:
    model, pairs = micro_model(), micro_pairs()
    heads = ["0.0", "1.0", "1.1"]
    pattern = attention(model, pairs, heads, **EXACT)[:, 0]
    assert torch.allclose(pattern[:, 0], torch.tensor([[1.0, 0.0]] * 3))
    assert torch.allclose(pattern[:, 1], torch.tensor([[0.5, 0.5], [0.75, 0.25], [1.0, 0.0]]))
    new = attention(model, pairs, heads, "new", **EXACT)[:, 0, 1]
    assert torch.allclose(new, torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.0, 1.0]]))
    after = {"senders": ["0.0"], "receivers": ["1.0.q"]}
    patched = attention(model, pairs, heads, after=after, **EXACT)[:, 0, 1]
    assert torch.allclose(patched, torch.tensor([[0.5, 0.5], [0.25, 0.75], [1.0, 0.0]]))


def test_zero_ablation() -> None:
    """1.0 off: ⟨−1, 1 − 1⟩ = ⟨−1, 0⟩. MLP 1 off: ⟨−1, −7⟩. 1.1 and MLP 1 off: ⟨−1, −6⟩.

    Both heads of layer 1 off: ⟨−1, 1⟩, and MLP 1 is off by itself: 10. A value's bias goes too: the
    z of 1.1 is 0 and not 3.
    """
    variants = [
        {},
        {"1.0": "END"},
        {"mlp1": "END"},
        {"1.1": "END", "mlp1": "END"},
        {"1.0": "all", "1.1": "all"},
    ]
    result = ablate(micro_model(), micro_pairs(), variants, "zero", **EXACT)
    b_of_two = logit_difference(-1, -6)
    check(result, 10, 5 * math.sqrt(2), -6, b_of_two, 10)


def test_mean_ablation() -> None:
    """z of 1.0 at END is 13.2 for Q E and −3.5 for P E.

    Over Q, P and P: 6.2/3, so b = 12.4/3. Over Q and P of form 5: 4.85, so b = 9.7. Over the pair
    itself, or from its new run: 13.2, so b = 26.4. MLP 1 is off each time.
    """
    model, pairs = micro_model(), micro_pairs()
    others = PromptPairs(
        [[E, E]] * 3,
        [[Q, E], [P, E], [P, E]],
        [0, 0, 0],
        [0, 0, 0],
        positions={"END": [1, 1, 1]},
        forms=[5, 5, 10**12],
    )
    for source, mean_pairs, b in (
        ("mean", others, 12.4 / 3),
        ("mean_by_form", others, 9.7),
        ("mean", None, 26.4),
        ("new", None, 26.4),
    ):
        result = ablate(model, pairs, [{"1.0": "END"}], source, mean_pairs=mean_pairs, **EXACT)
        check(result, logit_difference(-1, b))


def test_paths_under_a_knock_out() -> None:
    """Without MLP 1 the base is ⟨−1, −7⟩ → −6; 0.0 gives ⟨1, −7⟩ and 0.1 ⟨7, −1⟩, both → −8."""
    result = path_patch(
        micro_model(),
        micro_pairs(),
        ["0.0", "0.1"],
        knock_out={"mlp1": "END"},
        knock_out_source="zero",
        **EXACT,
    )
    assert result.base.tolist() == pytest.approx([-6.0])
    assert result.values[:, 0].tolist() == pytest.approx([-2.0, -2.0])


def test_activation_patches() -> None:
    """z of 1.0: b = 26.4, as its path. z of 0.0: END enters layer 1 as ⟨1, 1⟩, all is recomputed:
    1.0 has query factor −1 and equal keys: z = (−7 + 19)/2 = 6, writes 12; 1.1 has equal keys:
    z = (−2 + 8)/2 = 3, writes 1.5: ⟨1, 1 + 12 + 1.5⟩, MLP 1 off.

    resid_pre: at END of layer 0 both runs hold E: nothing. At the first token all that differs: the
    new run, ⟨1, 38.4⟩. At END of layer 1 ⟨1, 7⟩ → ⟨0.2, 1.4⟩: 1.0 has factor 0,
    z = (−7 + 19.4)/2 = 6.2, writes 12.4; 1.1 has scores 100 and 20, writes −1: ⟨1, 18.4⟩.
    """
    model, pairs = micro_model(), micro_pairs()
    z = activation_patch(model, pairs, "z", "END", ["1.0", "0.0"], **EXACT)
    check(z, logit_difference(-1, 26.4), logit_difference(1, 14.5))
    resid = activation_patch(model, pairs, "resid_pre", "each", **EXACT)
    assert resid.values.shape == (CONFIG.n_layer, 2, 1)
    assert resid.values[0, 1] == 0
    got = (resid.values[:, :, 0] + BASE).tolist()
    assert got[0][0] == pytest.approx(logit_difference(1, 38.4), rel=1e-6)
    assert got[1][1] == pytest.approx(logit_difference(1, 18.4), rel=1e-6)
