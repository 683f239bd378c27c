"""Weights of a transformers model that are no plain tensors in memory are refused by name."""

from __future__ import annotations

import pytest
import torch
from checkpoints import lively_model, refused
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
