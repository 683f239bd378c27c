"""`GPT2(config, weights)` takes what people have: strided tensors, parameters; not what has no
values or no floats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from small_models import ragged_pairs, tiny_model
from torch import Tensor

from ioi_fast import GPT2, ablate, pair_sweep, path_patch
from ioi_fast.model.weights import Weights

PAIRS = ragged_pairs()
CALLS = (
    lambda model, **how: path_patch(model, PAIRS, **how).values,
    lambda model, **how: path_patch(model, PAIRS, ["0.1"], ["2.1.k", "mlp1"], "S2", **how).values,
    lambda model, **how: ablate(model, PAIRS, [{"0.1": "all"}], metric="kl", **how).values,
    lambda model, **how: pair_sweep(model, PAIRS, ["v"], **how).effect,
)


def transposed(tensor: Tensor) -> Tensor:
    return tensor.T.contiguous().T if tensor.dim() == 2 else every_third(tensor)


def every_third(tensor: Tensor) -> Tensor:
    wide = torch.full((*tensor.shape[:-1], 3 * tensor.shape[-1]), torch.nan)
    wide[..., ::3] = tensor
    return wide[..., ::3]


def parameter(tensor: Tensor) -> Tensor:
    return torch.nn.Parameter(tensor.clone())


FORMS = [transposed, every_third, parameter]


@pytest.mark.filterwarnings("ignore:this CPU has no bf16")
@pytest.mark.parametrize("torch_alone", [False, True], ids=["c++", "torch"])
@pytest.mark.parametrize("form", FORMS)
def test_weights_of_any_form_give_the_same_bits(
    form: Callable, torch_alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if torch_alone:
        from ioi_fast.engine import choose_ops

        monkeypatch.setattr(choose_ops, "load_kernels", lambda: None)
        monkeypatch.setattr(choose_ops, "cpu_ops", choose_ops.torch_ops)
    plain = tiny_model(tie_word_embeddings=False)
    model = GPT2(plain.config, plain.weights.each(form))
    assert model.weight_hash() == plain.weight_hash()
    for call in CALLS:
        for how in ({}, {"precision": "bf16"}):
            got, wanted = call(model, **how), call(plain, **how)
            assert not got.requires_grad
            assert torch.allclose(got, wanted, rtol=1e-4, atol=1e-6)
        if call is not CALLS[-1]:
            slow = call(model, backend="reference")
            assert not slow.requires_grad and torch.allclose(slow, call(model), atol=1e-5)
    assert torch.allclose(model(PAIRS.orig), plain(PAIRS.orig), atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_the_callers_tensors_are_shared_and_their_edits_seen(form: Callable) -> None:
    weights = tiny_model().weights.each(form)
    model = GPT2(tiny_model().config, weights)
    before = CALLS[0](model)
    with torch.no_grad():
        weights.blocks[0].w_in.mul_(2)
        weights.blocks[1].ln_2_gain.mul_(2)
    new = GPT2(model.config, weights.each(lambda tensor: tensor.detach().clone()))
    assert torch.equal(CALLS[0](model), CALLS[0](new))
    assert not torch.equal(CALLS[0](model), before)
    assert not model.weights.wte.requires_grad and weights.wte.requires_grad == (form is parameter)


def with_block(weights: Weights, **tensors: object) -> Weights:
    first, second, *rest = weights.blocks
    return replace(weights, blocks=(first, replace(second, **tensors), *rest))


BLOCK = tiny_model().weights.blocks[1]
REFUSED = {
    "sparse": (lambda: BLOCK.w_in.to_sparse(), "dense tensor, got one that is torch.sparse_coo"),
    "rows": (lambda: BLOCK.w_in.to_sparse_csr(), "dense tensor, got one that is torch.sparse_csr"),
    "mkldnn": (lambda: BLOCK.w_in.to_mkldnn(), "dense tensor, got one that is torch._mkldnn"),
    "quantised": (
        lambda: torch.quantize_per_tensor(BLOCK.w_in, 0.1, 0, torch.qint8),
        "dense tensor, got one that is quantised",
    ),
    "meta": (lambda: BLOCK.w_in.to("meta"), "with values, got one on the device 'meta'"),
    "integers": (lambda: BLOCK.w_in.to(torch.int8), "of floats, got torch.int8"),
    "complex": (lambda: BLOCK.w_in.to(torch.complex64), "of floats, got torch.complex64"),
    "other": (
        lambda: BLOCK.w_in.bfloat16(),
        "of the type of wte, torch.float32, got torch.bfloat16",
    ),
    "numpy": (lambda: BLOCK.w_in.numpy(), "a tensor, got ndarray"),
    "none": (lambda: None, "a tensor, got NoneType"),
}


@pytest.mark.filterwarnings("ignore:(Sparse CSR|torch.quantize)")
@pytest.mark.parametrize(("tensor", "problem"), REFUSED.values(), ids=REFUSED)
def test_what_no_model_runs_on_is_named(tensor: Callable[[], object], problem: str) -> None:
    model = tiny_model()
    weights = with_block(model.weights, w_in=tensor())
    for take in (
        lambda: GPT2(model.config, weights),
        lambda: setattr(model, "weights", weights),
    ):
        with pytest.raises(TypeError, match=r"weights: blocks\[1\]\.w_in must be ") as caught:
            take()
        assert problem in str(caught.value)
    assert torch.equal(CALLS[0](model), CALLS[0](tiny_model()))


def test_what_are_no_weights_is_refused() -> None:
    with pytest.raises(TypeError, match="weights must be Weights, got dict"):
        GPT2(tiny_model().config, {})
