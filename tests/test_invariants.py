"""What must hold for any weights (paper section 3, end), on both backends."""

from __future__ import annotations

import pytest
import torch
from compare import assert_close
from small_models import ragged_pairs, shifted_pairs, tiny_model

from ioi_fast import PromptPairs, ablate, activation_patch, attention, path_patch
from ioi_fast.kernels import reference
from ioi_fast.reference.run import plain_run

BACKENDS = ["reference", "cpu"]


def rebuilt(pairs: PromptPairs, **changes: object) -> PromptPairs:
    """The same pairs with some arguments replaced."""
    names = ("orig", "new", "answers", "wrong_answers", "positions", "forms", "new_positions")
    return PromptPairs(**{**{name: getattr(pairs, name) for name in names}, **changes})


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("senders", ["heads", "mlps", [["0.0", "mlp1", "2.2"]]])
def test_equal_prompts_have_no_effect(backend: str, senders: object) -> None:
    pairs = ragged_pairs()
    same = rebuilt(pairs, new=pairs.orig)
    result = path_patch(tiny_model(), same, senders, backend=backend)
    assert result.values.shape[1] == len(pairs) and not result.values.any()


@pytest.mark.parametrize("receivers", [["1.0.q"], ["1.1.k", "mlp1"], ["0.0.v"], ["mlp0"]])
def test_a_sender_that_is_not_earlier_has_exactly_no_effect(receivers: list[str]) -> None:
    model, pairs = tiny_model(), ragged_pairs()
    heads_before = {"1.0.q": 3, "1.1.k": 6, "0.0.v": 0, "mlp0": 3}[receivers[0]]
    result = path_patch(model, pairs, "heads", receivers, None, backend="reference")
    assert not result.values[heads_before:].any()
    assert result.values[:heads_before].any(1).all()
    mlps = path_patch(model, pairs, "mlps", receivers, None, backend="reference")
    last = {"1.0.q": 1, "1.1.k": 1, "0.0.v": 0, "mlp0": 0}[receivers[0]]
    assert not mlps.values[last:].any() and mlps.values[:last].any(1).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("between", ["mlps", "nothing"])
def test_orders_and_batches_do_not_matter(backend: str, between: str) -> None:
    model, pairs = tiny_model(), ragged_pairs(N=5)
    senders = ["2.0", "0.1", ["1.1", "0.2"], "mlp1", "1.0"]
    arguments = {"between": between, "backend": backend}
    whole = path_patch(model, pairs, senders, **arguments).values
    backwards = path_patch(model, pairs, senders[::-1], **arguments).values.flip(0)
    assert_close(backwards, whole, 1e-5)
    order = [3, 1, 4, 0, 2]
    permuted = path_patch(model, pairs.select(order), senders, **arguments).values
    assert_close(permuted, whole[:, order], 1e-5)
    for n in range(len(pairs)):
        alone = path_patch(model, pairs.select([n]), senders, **arguments).values
        assert_close(alone, whole[:, [n]], 2e-5)
    for s, sender in enumerate(senders):
        single = path_patch(model, pairs, [sender], **arguments).values
        assert_close(single, whole[[s]], 1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_follows_end_never_matters(backend: str) -> None:
    model, pairs = tiny_model(), ragged_pairs()
    T = pairs.orig.shape[1]
    after = torch.arange(T) > pairs.end[:, None]
    assert after.any()
    noise = torch.randint(53, pairs.orig.shape, generator=torch.Generator().manual_seed(9))
    other = rebuilt(
        pairs,
        orig=torch.where(after, noise, pairs.orig),
        new=torch.where(after, noise.flip(1), pairs.new),
    )
    for arguments in (
        {"senders": "heads"},
        {"senders": "heads", "knock_out": {"0.0": "all"}, "backend": "reference"},
        {"senders": "heads", "receivers": ["2.0.v"], "position": None, "backend": "reference"},
    ):
        chosen = {"backend": backend, **arguments}
        first = path_patch(model, pairs, **chosen)
        second = path_patch(model, other, **chosen)
        assert_close(second.values, first.values, 1e-5)
    assert pairs.token_hash() == other.token_hash()


@pytest.mark.parametrize("backend", BACKENDS)
def test_only_end_reaches_the_logits(backend: str) -> None:
    model, pairs = tiny_model(), ragged_pairs()
    at_end = path_patch(model, pairs, position="END", backend=backend).values
    assert torch.equal(path_patch(model, pairs, position=None, backend=backend).values, at_end)
    assert torch.equal(path_patch(model, pairs, position=pairs.end, backend=backend).values, at_end)
    assert not path_patch(model, pairs, position="S2", backend=backend).values.any()
    mixed = path_patch(model, pairs, position=int(pairs.end[0]), backend=backend).values
    reached = pairs.end == pairs.end[0]
    assert not mixed[:, ~reached].any()
    assert_close(mixed[:, reached], at_end[:, reached], 1e-5)


def test_frozen_mlps_mean_adding_to_the_final_residual() -> None:
    model, pairs = tiny_model(), ragged_pairs()
    exact = model.to(dtype=torch.float64)
    orig = plain_run(exact, pairs.orig, pairs.end)
    new = plain_run(exact, pairs.new, pairs.new_end)
    rows = torch.arange(len(pairs))
    last = len(exact.weights.blocks) - 1
    final = orig.used["resid_mid", last] + orig.used["mlp_out", last]
    result = path_patch(model, pairs, between="nothing", backend="cpu")
    w, base = exact.weights, result.base.double()
    for s, sender in enumerate(result.senders):
        layer, head = (int(part) for part in sender.split("."))
        columns = slice(8 * head, 8 * head + 8)
        z = (new.used["z", layer] - orig.used["z", layer])[rows, pairs.end, head]
        moved = final[rows, pairs.end] + z @ w.blocks[layer].w_o[columns]
        normed = reference.layernorm(moved, w.ln_f_gain, w.ln_f_bias, 1e-5)
        logits = normed @ w.unembed.T
        truth = logits[rows, pairs.answers] - logits[rows, pairs.wrong_answers] - base
        assert_close(result.values[s].double(), truth, 1e-5)


def test_patching_every_difference_gives_the_new_run() -> None:
    model, pairs = tiny_model(), ragged_pairs()
    whole = activation_patch(model, pairs, "resid_pre", None, backend="reference")
    new_logits = model(pairs.new)[torch.arange(len(pairs)), pairs.new_end]
    rows = torch.arange(len(pairs))
    new = new_logits[rows, pairs.answers] - new_logits[rows, pairs.wrong_answers]
    assert_close(whole.base + whole.values[0], new, 1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_swapping_exchanges_the_base(backend: str) -> None:
    model, pairs = tiny_model(), shifted_pairs()
    result = path_patch(model, pairs.swapped(), backend=backend)
    logits = model(pairs.new)[torch.arange(len(pairs)), pairs.new_end]
    rows = torch.arange(len(pairs))
    base = logits[rows, pairs.answers] - logits[rows, pairs.wrong_answers]
    assert_close(result.base, base, 1e-5)
    assert result.provenance["direction"] == "denoising"


def test_attention_rows_sum_to_one() -> None:
    pairs = ragged_pairs()
    pattern = attention(tiny_model(), pairs, "heads", backend="reference")
    assert pattern.shape == (9, len(pairs), 7, 7)
    assert_close(pattern.sum(-1), torch.ones(9, len(pairs), 7), 1e-6)
    assert not pattern.triu(1).any()


def test_ablating_a_circuit_of_everything_is_the_model() -> None:
    from ioi_fast import Circuit

    model, pairs = tiny_model(), ragged_pairs()
    first = pairs.orig[:1, :1]
    one = rebuilt(pairs.select([0]), positions={"END": [0]}, orig=first, new=first)
    everything = Circuit({f"{layer}.{head}": "END" for layer in range(3) for head in range(3)})
    whole = ablate(model, one, [{}], "zero", everything, backend="reference")
    plain = ablate(model, one, [{}], "zero", backend="reference")
    assert torch.equal(whole.base, plain.base)
    nothing = ablate(model, pairs, [{}], "zero", Circuit({}), backend="reference")
    variant = {f"{layer}.{head}": "all" for layer in range(3) for head in range(3)}
    ablated = ablate(model, pairs, [variant], "zero", backend="reference")
    assert_close(ablated.base + ablated.values[0], nothing.base, 1e-6)
    kept = Circuit({"0.1": "S2", "2.0": "END"})
    inside = ablate(model, pairs, [{}, {"0.1": "S2"}], "mean", kept, backend="reference")
    smaller = ablate(model, pairs, [{}], "mean", Circuit({"2.0": "END"}), backend="reference")
    assert not inside.values[0].any() and inside.values[1].any()
    assert_close(inside.base + inside.values[1], smaller.base, 1e-6)
