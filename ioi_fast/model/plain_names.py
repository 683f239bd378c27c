"""The tensors of a language model by GPT-2's own names, whatever wrapped the model when it was
saved, and the tensors of heads that were trained beside it.

A wrapper's prefix is taken away where all tensors have it; a head beside the model reads its last
layer for another task, so that no logit depends on it. Nothing else is dropped here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ioi_fast.model.stored_tensor import StoredTensor
from ioi_fast.outside.quoting import quoted

# What torch.compile, data parallel and sharded training, accelerate, Lightning, trl and peft put in
# front of the names of the model that they hold.
_WRAPPERS = (
    r"((?:(?:model|module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module"
    r"|_forward_module|pretrained_model|base_model)\.)*)"
)
# Wrappers of the whole, "transformer." (which files of a GPT2Model lack), wrappers of the
# transformer, the layer, wrappers of each layer, and the rest of a name.
_NAME = re.compile(
    rf"{_WRAPPERS}(transformer\.)?{_WRAPPERS}(h\.[0-9]+\.)?{_WRAPPERS}(.*)", re.DOTALL
)

# Heads of transformers' GPT-2 classes (2 to 5), of trl and of others that train with rewards; none
# of these names is one that a file uses for the matrix in front of the logits.
_HEAD = re.compile(
    r"score|classifier|qa_outputs|multiple_choice_head|classification_head|regression_head"
    r"|regressor|(v|q|target_q|value|critic|reward|rm|cls|score|label|mc|qa|ilql)_heads?"
)


@dataclass(frozen=True, slots=True)
class NamedTensors:
    """Tensors of a language model by plain name, and those of heads beside it."""

    model: dict[str, StoredTensor]
    heads: tuple[StoredTensor, ...]


def by_plain_name(stored: Iterable[StoredTensor]) -> NamedTensors:
    """Tensors by their names without prefix.

    Raises ValueError when a name is there with and without prefix, or with different ones.
    """
    tensors: dict[str, StoredTensor] = {}
    heads: list[StoredTensor] = []
    wrapped_by: dict[str, tuple[str, StoredTensor]] = {}
    for tensor in stored:
        outer, transformer, inner, layer, within, rest = (
            part or "" for part in _NAME.fullmatch(tensor.name).groups()
        )
        if not transformer and not layer and _HEAD.fullmatch(rest.split(".", 1)[0]):
            heads.append(tensor)
            continue
        _check_same(wrapped_by, "the model", outer, tensor)
        if transformer:
            _check_same(wrapped_by, "the transformer", inner, tensor)
        if layer:
            _check_same(wrapped_by, "a layer", within, tensor)
        other = tensors.setdefault(layer + rest, tensor)
        if other is not tensor:
            raise ValueError(
                f"{tensor} is there twice: also as {quoted(other.name)} in {other.origin}"
            )
    return NamedTensors(tensors, tuple(heads))


def _check_same(
    wrapped_by: dict[str, tuple[str, StoredTensor]], what: str, prefix: str, tensor: StoredTensor
) -> None:
    first, example = wrapped_by.setdefault(what, (prefix, tensor))
    if first != prefix:
        raise ValueError(
            f"{tensor} has the prefix {quoted(prefix)} of a wrapper of {what}, "
            f"{quoted(example.name)} has {quoted(first)}: a prefix is taken away where all have it"
        )


def found_elsewhere(name: str, tensors: Iterable[str]) -> str | None:
    """A name that ends in this one, with something in front that is no wrapper's known prefix."""
    return next((found for found in tensors if found.endswith(f".{name}")), None)
