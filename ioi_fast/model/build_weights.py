"""The tensors of a GPT-2 by the names that its files give them, and the weights made of them.

Names here are plain: without "transformer." and prefixes of wrappers (`plain_names`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ioi_fast.model.config import GPT2Config
from ioi_fast.model.plain_names import found_elsewhere
from ioi_fast.model.stored_tensor import StoredTensor
from ioi_fast.model.weights import Block, Weights
from ioi_fast.outside.quoting import quoted
from ioi_fast.own_settings import own_settings

EMBED = "wte.weight"
UNEMBED = "lm_head.weight"

# Field -> name in the file and axes. C: n_positions; E: 3·H·K; the rest as in model.py.
_OUTER = {
    "wte": (EMBED, "VD"),
    "wpe": ("wpe.weight", "CD"),
    "ln_f_gain": ("ln_f.weight", "D"),
    "ln_f_bias": ("ln_f.bias", "D"),
}
_BLOCK = {
    "ln_1_gain": ("ln_1.weight", "D"),
    "ln_1_bias": ("ln_1.bias", "D"),
    "w_qkv": ("attn.c_attn.weight", "DE"),
    "b_qkv": ("attn.c_attn.bias", "E"),
    "w_o": ("attn.c_proj.weight", "DD"),
    "b_o": ("attn.c_proj.bias", "D"),
    "ln_2_gain": ("ln_2.weight", "D"),
    "ln_2_bias": ("ln_2.bias", "D"),
    "w_in": ("mlp.c_fc.weight", "DF"),
    "b_in": ("mlp.c_fc.bias", "F"),
    "w_out": ("mlp.c_proj.weight", "FD"),
    "b_out": ("mlp.c_proj.bias", "D"),
}

# What older versions of transformers saved besides: a causal mask and the score of a masked key.
_LEFT_OVER = re.compile(r"h\.(0|[1-9][0-9]{0,8})\.attn\.(bias|masked_bias)")


@own_settings()
def build_weights(
    config: GPT2Config, stored: Mapping[str, StoredTensor], where: str
) -> tuple[GPT2Config, Weights]:
    """The weights of a GPT-2 in fp32, read from stored tensors given by plain name, and its config.

    One matrix that both ends share may be stored under either name. Where the config ties them but
    two different ones are stored, the config that comes back has tie_word_embeddings=False. Every
    name, type and shape is checked before the first value is read. Raises ValueError naming the
    place and the tensor that is missing, too many, misshapen, not a float, NaN or infinite.
    """
    if config.tie_word_embeddings and EMBED not in stored and UNEMBED in stored:
        stored = {EMBED: stored[UNEMBED], **stored}
    _check_nothing_missing(config, stored, where)
    _check_nothing_extra(config, stored)
    outer = {field: stored[name].read() for field, (name, _) in _OUTER.items()}
    blocks = tuple(
        Block(**{field: stored[f"h.{layer}.{name}"].read() for field, (name, _) in _BLOCK.items()})
        for layer in range(config.n_layer)
    )
    unembed = _unembed(config, stored, outer["wte"])
    config = replace(config, tie_word_embeddings=unembed is outer["wte"])
    return config, Weights(**outer, blocks=blocks, unembed=unembed)


def expected_tensors(config: GPT2Config) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Plain name and shape of every tensor that a config asks for."""
    sizes = {
        "V": config.vocab_size,
        "C": config.n_positions,
        "D": config.n_embd,
        "E": 3 * config.n_embd,
        "F": config.d_mlp,
    }

    def shape(axes: str) -> tuple[int, ...]:
        return tuple(sizes[axis] for axis in axes)

    yield from ((name, shape(axes)) for name, axes in _OUTER.values())
    for layer in range(config.n_layer):
        yield from ((f"h.{layer}.{name}", shape(axes)) for name, axes in _BLOCK.values())
    if not config.tie_word_embeddings:
        yield UNEMBED, shape("VD")


def _check_nothing_missing(
    config: GPT2Config, stored: Mapping[str, StoredTensor], where: str
) -> None:
    for name, shape in expected_tensors(config):
        if name not in stored:
            raise ValueError(f"{where}: tensor {name!r} is missing{_why_missing(name, stored)}")
        stored[name].check(shape)
    if UNEMBED in stored:
        stored[UNEMBED].check(stored[EMBED].shape)


def _why_missing(name: str, stored: Mapping[str, StoredTensor]) -> str:
    if name == UNEMBED:
        return " (the config says tie_word_embeddings=false)"
    longer = found_elsewhere(name, stored)
    return "" if longer is None else f" (there is {quoted(stored[longer].name)}: what is in front?)"


def _check_nothing_extra(config: GPT2Config, stored: Mapping[str, StoredTensor]) -> None:
    expected = {name for name, _ in expected_tensors(config)} | {UNEMBED}
    for name, tensor in stored.items():
        if name in expected:
            continue
        found = _LEFT_OVER.fullmatch(name)
        if found is None or int(found[1]) >= config.n_layer:
            raise ValueError(
                f"{tensor} does not belong to a GPT2LMHeadModel of {config.n_layer} layers"
            )
        if found[2] == "bias":
            _check_causal(tensor)


def _check_causal(tensor: StoredTensor) -> None:
    """A saved attention mask must be the causal one, since the model computes with that."""
    size = tensor.shape[-1] if tensor.shape else 0
    if tensor.shape != (1, 1, size, size):
        raise ValueError(
            f"{tensor} must be a causal mask [1, 1, n, n], got {quoted(list(tensor.shape))}"
        )
    if not torch.equal(tensor.fetch().cpu() != 0, torch.ones(tensor.shape, dtype=bool).tril()):
        raise ValueError(f"{tensor} must be a causal mask: ones up to the diagonal, zeros beyond")


def _unembed(config: GPT2Config, stored: Mapping[str, StoredTensor], wte: Tensor) -> Tensor:
    """The output matrix [V, D]: `wte` itself where the head is tied, unless it has other values."""
    if config.tie_word_embeddings and stored.get(UNEMBED, stored[EMBED]) is stored[EMBED]:
        return wte
    head = stored[UNEMBED].read()
    return wte if config.tie_word_embeddings and torch.equal(head, wte) else head
