"""A GPT2LMHeadModel of transformers that is in memory: that it computes what its config says, and
its tensors.

The object can be anything by now. What is changed about it beyond the values of its weights would
be lost without a word, so it is refused by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from ioi_fast.model.stored_tensor import StoredTensor
from ioi_fast.outside.quoting import quoted

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

_SAFETENSORS_TYPES = {
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
}
_LIBRARIES = ("transformers", "torch")
# Of each block's modules, what they read of the config when they are made.
_TAKEN = {
    "attn.num_heads": "n_head",
    "attn.embed_dim": "n_embd",
    "attn.scale_attn_weights": "scale_attn_weights",
    "attn.scale_attn_by_inverse_layer_idx": "scale_attn_by_inverse_layer_idx",
    "ln_1.eps": "layer_norm_epsilon",
    "ln_2.eps": "layer_norm_epsilon",
}


def is_transformers_gpt2(source: object) -> bool:
    """Whether this is a transformers.GPT2LMHeadModel, told without importing transformers."""
    return any(_is_published(base) for base in type(source).__mro__)


def check_as_its_config(model: GPT2LMHeadModel) -> None:
    """Raises ValueError naming what computes otherwise than the config says: code of its own, a
    hook, or a setting that was changed afterwards."""
    for name, module in model.named_modules():
        where = f"{type(model).__name__}{name and '.'}{name}"
        own = _code_of_its_own(module)
        if own is not None:
            raise ValueError(f"{where} is not transformers' own: {own}")
    config, blocks = model.config, model.transformer.h
    settings = [("transformer.ln_f.eps", model.transformer.ln_f.eps, "layer_norm_epsilon")]
    for layer, block in enumerate(blocks):
        _check_activation(block.mlp.act, config, f"transformer.h.{layer}.mlp.act")
        for path, name in _TAKEN.items():
            module, attribute = path.split(".")
            value = getattr(getattr(block, module), attribute, getattr(config, name))
            settings.append((f"transformer.h.{layer}.{path}", value, name))
    for where, value, name in settings:
        if value != getattr(config, name):
            raise ValueError(
                f"{where} is {quoted(value)}, where the config has "
                f"{name}={quoted(getattr(config, name))}"
            )


def tensors_in_memory(model: GPT2LMHeadModel, where: str) -> Iterator[StoredTensor]:
    """The tensors of a transformers model; TypeError naming one that is no plain tensor."""
    for name, tensor in model.state_dict().items():
        if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
            kind = type(tensor).__name__
        elif tensor.is_meta:
            kind = "one on 'meta', which has no values"
        elif tensor.layout != torch.strided or tensor.is_quantized:
            kind = f"a sparse or quantised one ({tensor.layout}, {tensor.dtype})"
        else:
            yield StoredTensor(
                name=name,
                origin=where,
                dtype=_SAFETENSORS_TYPES.get(tensor.dtype, str(tensor.dtype)),
                shape=tuple(tensor.shape),
                fetch=tensor.detach,
            )
            continue
        raise TypeError(f"{where}: tensor {name!r} must be a plain tensor in memory, got {kind}")


def _is_published(kind: type) -> bool:
    return kind.__name__ == "GPT2LMHeadModel" and kind.__module__.split(".")[0] == "transformers"


def _code_of_its_own(module: torch.nn.Module) -> str | None:
    """What a module computes that its library does not, or None."""
    if module._forward_hooks or module._forward_pre_hooks:
        return "it has a forward hook, which may change what it gives"
    if "forward" in vars(module):
        return "its forward was replaced"
    for kind in type(module).__mro__:
        if kind.__module__.split(".")[0] in _LIBRARIES:
            return None
        if {"forward", "__call__"} & vars(kind).keys():
            return f"{kind.__name__} has a forward of its own"
    return None


def _check_activation(act: object, config: object, where: str) -> None:
    from transformers.activations import ACT2FN

    wanted = ACT2FN[config.activation_function]
    if type(act) is not type(wanted):
        raise ValueError(
            f"{where} is {type(act).__name__}, where the config has "
            f"activation_function={quoted(config.activation_function)}"
        )
