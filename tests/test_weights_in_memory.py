"""Models of transformers in memory: what is no plain tensor, or computes otherwise, is refused."""

from __future__ import annotations

import re

import pytest
import torch
from checkpoints import (
    assert_same_logits,
    lively_model,
    random_tokens,
    refused,
    true_logits,
)
from torch import Tensor
from transformers import GPT2LMHeadModel

from ioi_fast.model.checkpoint import load


def _meta(model: GPT2LMHeadModel) -> None:
    model.to("meta")


def _offloaded(model: GPT2LMHeadModel) -> None:
    model.transformer.h[1].to("meta")


def _sparse(model: GPT2LMHeadModel) -> None:
    weight = model.transformer.h[1].mlp.c_fc.weight.detach()
    model.transformer.h[1].mlp.c_fc.weight = torch.nn.Parameter(weight.to_sparse())


def _quantised(model: GPT2LMHeadModel) -> None:
    weight = model.transformer.h[1].mlp.c_fc.weight.detach()
    whole = torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8)
    model.transformer.h[1].mlp.c_fc.weight = torch.nn.Parameter(whole, requires_grad=False)


class _Wrapped(Tensor):
    """As libraries that quantise do: a tensor that says it is fp32 and is not."""


def _of_a_class_of_its_own(model: GPT2LMHeadModel) -> None:
    layer = model.transformer.h[1].mlp.c_fc
    layer.weight = torch.nn.Parameter(layer.weight.detach().as_subclass(_Wrapped))


def _packed(model: GPT2LMHeadModel) -> None:
    model.lm_head = torch.ao.nn.quantized.dynamic.Linear(48, 61, bias_=False)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize(
    ("change", "name"),
    [
        (_meta, "transformer.wte.weight"),
        (_offloaded, "transformer.h.1.ln_1.weight"),
        (_sparse, "transformer.h.1.mlp.c_fc.weight"),
        (_quantised, "transformer.h.1.mlp.c_fc.weight"),
        (_of_a_class_of_its_own, "transformer.h.1.mlp.c_fc.weight"),
        (_packed, "lm_head._packed_params.dtype"),
    ],
)
def test_weights_in_memory_that_are_no_plain_tensors(change, name: str) -> None:
    theirs = lively_model()
    change(theirs)
    with pytest.raises(TypeError, match=f"GPT2LMHeadModel: tensor '{name}' must be a plain tensor"):
        load(theirs)


def test_whole_numbers_in_memory() -> None:
    theirs = lively_model()
    layer = theirs.transformer.h[1].mlp.c_fc
    layer.weight = torch.nn.Parameter(layer.weight.detach().to(torch.int8), requires_grad=False)
    refused(theirs, "transformer.h.1.mlp.c_fc.weight", "must hold floats", "int8")


class Louder(GPT2LMHeadModel):
    def forward(self, *given, **more):
        out = super().forward(*given, **more)
        out.logits = 2 * out.logits
        return out


def louder(model: GPT2LMHeadModel) -> None:
    model.__class__ = Louder


def other_forward(model: GPT2LMHeadModel) -> None:
    model.transformer.h[1].mlp.forward = lambda hidden: hidden


CHANGES = {
    "forward of its own": louder,
    "its forward was replaced": other_forward,
    "lm_head is not transformers' own: it has a forward hook": lambda model: (
        model.lm_head.register_forward_hook(lambda *given: given[-1] * 2)
    ),
    "h.0.mlp.act is ReLU": lambda model: setattr(
        model.transformer.h[0].mlp, "act", torch.nn.ReLU()
    ),
    "ln_f.eps is 0.1": lambda model: setattr(model.transformer.ln_f, "eps", 0.1),
    "h.1.ln_2.eps is 0.1": lambda model: setattr(model.transformer.h[1].ln_2, "eps", 0.1),
    "scale_attn_weights=False": lambda model: setattr(model.config, "scale_attn_weights", False),
    "n_head=6": lambda model: setattr(model.config, "n_head", 6),
}


@pytest.mark.parametrize("said", CHANGES)
def test_models_that_compute_otherwise_than_their_config_says(said: str) -> None:
    model = lively_model()
    CHANGES[said](model)
    with pytest.raises(ValueError, match=re.escape(said)):
        load(model)


def test_a_subclass_that_computes_the_same_is_taken() -> None:
    class Mine(GPT2LMHeadModel):
        def greet(self) -> str:
            return "hello"

    model = lively_model()
    model.__class__ = Mine
    tokens = random_tokens(61)
    assert_same_logits(load(model)(tokens), true_logits(model, tokens))
