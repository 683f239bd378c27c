"""Weights that change after a first call: the next one, on any backend, is about the new ones."""

from __future__ import annotations

import copy
import gc
import pickle
import time
import weakref
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from small_models import ragged_pairs, tiny_model
from torch import Tensor

from ioi_fast import (
    GPT2,
    GPT2Config,
    ablate,
    activation_patch,
    attention,
    load,
    pair_sweep,
    path_patch,
)
from ioi_fast.engine.ops import Ops
from ioi_fast.engine.packed_weights import PackedWeights
from ioi_fast.ioi.walk import walk
from ioi_fast.kernels import torch_ops
from ioi_fast.model.made_of_weights import MadeOfWeights

PAIRS = ragged_pairs()
CALLS = {
    "path_patch": lambda model, **how: path_patch(model, PAIRS, **how).values,
    "receivers": lambda model, **how: (
        path_patch(model, PAIRS, ["0.1"], ["2.1.q", "2.0.v"], "S2", **how).values
    ),
    "kl": lambda model, **how: path_patch(model, PAIRS, metric="kl", **how).values,
    "activation_patch": lambda model, **how: activation_patch(model, PAIRS, "v", **how).values,
    "ablate": lambda model, **how: ablate(model, PAIRS, [{"0.1": "all"}], **how).values,
    "pair_sweep": lambda model, **how: pair_sweep(model, PAIRS, ["k"], **how).effect,
    "attention": lambda model, **how: attention(model, PAIRS, "heads", **how),
}


def untied(seed: int = 0) -> GPT2:
    return tiny_model(seed, tie_word_embeddings=False)


def fresh(model: GPT2) -> GPT2:
    """A model that knows nothing of what this one was."""
    return GPT2(model.config, model.weights.each(Tensor.clone))


def assert_knows_its_weights(model: GPT2, before: Tensor) -> None:
    """Every call answers as for a new model with these weights, and not as before."""
    new = fresh(model)
    for name, call in CALLS.items():
        for backend in ("cpu",) if name == "pair_sweep" else ("cpu", "reference"):
            assert torch.equal(call(model, backend=backend), call(new, backend=backend)), name
    slow, fast = (CALLS["kl"](model, backend=which) for which in ("reference", "cpu"))
    assert torch.allclose(fast, slow, rtol=1e-3, atol=1e-5)
    assert (fast - before).abs().max() > 100 * (fast - slow).abs().max()
    assert torch.equal(model(PAIRS.orig), new(PAIRS.orig))
    assert model.weight_hash() == new.weight_hash()
    assert torch.equal(model.folded()(PAIRS.orig), new.folded()(PAIRS.orig))
    last = list(walk(model, PAIRS.orig))[-1].resid_pre
    assert torch.equal(last, list(walk(new, PAIRS.orig))[-1].resid_pre)


def used(model: GPT2) -> Tensor:
    """What a model answers; it has then been through every call and precision."""
    model(PAIRS.orig)
    model.weight_hash()
    for how in ({}, {"precision": "bf16"}):
        for call in CALLS.values():
            call(model, **how)
    CALLS["path_patch"](model, backend="reference")
    return CALLS["kl"](model)


pytestmark = pytest.mark.filterwarnings("ignore:this CPU has no bf16")


@pytest.mark.parametrize("name", list(untied().weights.named()))
def test_an_edit_of_any_tensor_is_seen(name: str) -> None:
    model = untied()
    calls = [lambda: model(PAIRS.orig), lambda: CALLS["kl"](model), model.weight_hash]
    before = [call() for call in calls]
    tensor = model.weights.named()[name]
    tensor[..., ::2] *= 1.5
    new = fresh(model)
    assert torch.equal(model(PAIRS.orig), new(PAIRS.orig))
    assert torch.equal(CALLS["kl"](model), CALLS["kl"](new))
    assert model.weight_hash() == new.weight_hash() != before[2]
    assert not torch.equal(calls[0](), before[0]) and not torch.equal(calls[1](), before[1])


def replaced_block(model: GPT2) -> None:
    first, *others = model.weights.blocks
    changed = replace(first, w_in=first.w_in * 2, w_qkv=first.w_qkv * 0.5)
    model.weights = replace(model.weights, blocks=(changed, *others))


def all_doubled(model: GPT2) -> None:
    with torch.no_grad():
        torch._foreach_mul_(model.weights.tensors(), 1.25)


def in_inference_mode(model: GPT2) -> None:
    with torch.inference_mode():
        model.weights.blocks[0].w_out.mul_(2)


def through_a_view(model: GPT2) -> None:
    model.weights.blocks[0].w_qkv.T[5:20].mul_(2)
    model.weights.wte.detach()[:].mul_(1.5)


def other_memory(model: GPT2) -> None:
    tensor = model.weights.blocks[0].w_out
    tensor.data = tensor * 2


def past_the_counters(model: GPT2) -> None:
    model.weights.blocks[0].w_in.data.mul_(2)
    model.weights.blocks[1].w_o.numpy()[:] *= 3
    model.refresh()


EDITS = {
    "replaced": replaced_block,
    "all": all_doubled,
    "inference mode": in_inference_mode,
    "views": through_a_view,
    "other memory": other_memory,
    "refresh": past_the_counters,
}


@pytest.mark.parametrize("edit", list(EDITS.values()), ids=EDITS)
def test_every_call_is_about_the_new_weights(edit: Callable[[GPT2], None]) -> None:
    model = tiny_model()
    before = used(model)
    edit(model)
    assert_knows_its_weights(model, before)


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_has_weights_of_its_own(twin: Callable[[GPT2], GPT2]) -> None:
    model = tiny_model()
    before = used(model)
    other = twin(model)
    assert other.weights.unembed is other.weights.wte is not model.weights.wte
    assert other.weight_hash() == model.weight_hash()
    other.weights.blocks[0].w_in.mul_(2)
    assert_knows_its_weights(other, before)
    assert torch.equal(CALLS["kl"](model), before)
    model.weights.blocks[0].w_out.mul_(3)
    assert_knows_its_weights(model, before)


def test_models_that_share_weights_see_each_others_edits() -> None:
    model = tiny_model()
    other = GPT2(model.config, model.weights)
    before = used(model)
    assert torch.equal(used(other), before) and load(model) is model
    other.weights.wte.mul_(1.5)
    assert_knows_its_weights(model, before)
    assert_knows_its_weights(other, before)


def test_a_tied_head_is_edited_with_the_embedding_and_an_untied_one_alone() -> None:
    tied, apart = tiny_model(), untied()
    for model, name in ((tied, "unembed"), (apart, "unembed"), (tied, "wte")):
        before = used(model)
        getattr(model.weights, name).mul_(2)
        assert_knows_its_weights(model, before)
    assert tied.weights.unembed is tied.weights.wte


def test_a_model_in_another_precision_keeps_a_hash_of_its_own() -> None:
    model = tiny_model()
    own = model.weight_hash()
    model.weights.wpe.mul_(2)
    double = model.to(dtype=torch.float64)
    assert double.weight_hash() == fresh(model).weight_hash() != own
    model.weights.wpe.mul_(2)
    assert double.weight_hash() != model.weight_hash()
    double.weights.wpe.mul_(2)
    assert double.weight_hash() == model.weight_hash()


def test_tensors_of_folded_weights_are_apart() -> None:
    folded = tiny_model().to(dtype=torch.float64).folded()
    places = [tensor.data_ptr() for tensor in folded.weights.tensors()]
    assert len(set(places)) == len(places)


def test_weights_made_in_inference_mode_are_used_and_refreshed() -> None:
    with torch.inference_mode():
        model = tiny_model()
        before = used(model)
    assert torch.equal(used(model), before)
    with torch.inference_mode():
        model.weights.blocks[0].w_in.mul_(2)
    model.refresh()
    assert_knows_its_weights(model, before)


def test_nan_that_comes_after_use_is_named() -> None:
    model = tiny_model()
    used(model)
    model.weights.blocks[1].w_out[3, 4] = torch.nan
    for name, call in CALLS.items():
        for backend in ("cpu", "reference"):
            with pytest.raises(ValueError, match=r"model: blocks\[1\]\.w_out must be finite"):
                call(model, backend=backend)
            assert name
    model.weights.blocks[1].w_out[3, 4] = 0
    CALLS["kl"](model)


def test_packed_weights_are_kept_while_nothing_changes_and_freed_before_the_next() -> None:
    model = tiny_model()
    ops = Ops.of("cpu/torch", torch_ops)
    packed = PackedWeights.of(model, ops)
    product = weakref.ref(packed)
    used(model)
    assert PackedWeights.of(model, ops) is packed
    del packed
    gc.disable()
    try:
        model.weights.wte.add_(1)
        model.made  # noqa: B018
        assert product() is None
    finally:
        gc.enable()


def test_pickles_hold_the_weights_alone() -> None:
    model = tiny_model(n_embd=96, n_inner=400)
    small = len(pickle.dumps(model))
    used(model)
    assert (
        len(pickle.dumps(model))
        == small
        < 1.2 * sum(tensor.numel() * 4 for tensor in model.weights.tensors())
    )
    demo = pickle.loads(pickle.dumps(load("demo")))
    assert demo.tokenizer.encode(" Mary") == load("demo").tokenizer.encode(" Mary")


def test_asking_costs_less_than_a_millisecond_a_call() -> None:
    """148 tensors, as GPT-2 small has; a call asks about five times."""
    model = GPT2.random(GPT2Config(n_layer=12, n_head=2, n_embd=8, vocab_size=9, n_positions=8))
    assert len(model.made.tensors) == 148
    best = 1.0
    for _ in range(50):
        start = time.process_time()
        for _ in range(5):
            model.made  # noqa: B018
        best = min(best, time.process_time() - start)
    assert best < 1e-3


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.Adam, torch.optim.SGD])
def test_fused_optimizers_which_torch_does_not_count(optimizer: type) -> None:
    model, pairs = tiny_model(), ragged_pairs()
    before = path_patch(model, pairs).values
    weights = [tensor.requires_grad_() for tensor in model.weights.tensors()]
    for tensor in weights:
        tensor.grad = torch.ones_like(tensor)
    optimizer(weights, lr=0.05, fused=True).step()
    for tensor in weights:
        tensor.requires_grad_(False)
    fresh = GPT2(model.config, model.weights.each(torch.clone))
    after = path_patch(model, pairs).values
    assert torch.equal(after, path_patch(fresh, pairs).values)
    assert not torch.equal(after, before) and model.weight_hash() == fresh.weight_hash()


def test_what_was_made_is_given_while_another_thread_forgets_it(monkeypatch) -> None:
    model = tiny_model()
    found = MadeOfWeights.still_true

    def forgotten(made: MadeOfWeights, *now: object) -> bool:
        model.refresh()
        return found(made, *now)

    made = model.made
    monkeypatch.setattr(MadeOfWeights, "still_true", forgotten)
    assert model.made is made
