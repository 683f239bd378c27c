"""The shape and the arithmetic flags of a GPT-2; field names are Hugging Face's.

A flag that changes the arithmetic is honoured or refused by name; none is ignored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from ioi_fast.model.arithmetic_settings import arithmetic_settings
from ioi_fast.outside.quoting import quoted

_LARGEST_FP32 = 3.4028234663852886e38
ACTIVATIONS = ("gelu_new", "gelu_pytorch_tanh", "gelu", "relu")


@dataclass(frozen=True, slots=True, kw_only=True)
class GPT2Config:
    """Shape of a GPT-2; the default is GPT-2 small.

    Raises ValueError for sizes that do not fit together and flags that are not supported.

    >>> GPT2Config(n_layer=2, n_head=4, n_embd=64).d_head
    16
    """

    vocab_size: int = 50257
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int | None = None
    activation_function: str = "gelu_new"
    layer_norm_epsilon: float = 1e-5
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    # Changes only how a half-precision run would round; scores are computed in fp32 anyway.
    reorder_and_upcast_attn: bool = False
    tie_word_embeddings: bool = True
    eos_token_id: int | None = None

    def __post_init__(self) -> None:
        for name in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "n_inner"):
            size = getattr(self, name)
            if size is None and name == "n_inner":
                continue
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise ValueError(f"{name} must be a positive integer, got {quoted(size)}")
        if self.n_embd % self.n_head:
            raise ValueError(
                f"n_embd must be a multiple of n_head, got n_embd={quoted(self.n_embd)}, "
                f"n_head={quoted(self.n_head)}"
            )
        if self.activation_function not in ACTIVATIONS:
            raise ValueError(
                f"activation_function must be one of {', '.join(ACTIVATIONS)}, "
                f"got {quoted(self.activation_function)}"
            )
        self._check_flags()

    def _check_flags(self) -> None:
        epsilon = self.layer_norm_epsilon
        if (
            isinstance(epsilon, bool)
            or not isinstance(epsilon, (int, float))
            or not 0 < epsilon < 1
        ):
            raise ValueError(
                f"layer_norm_epsilon must be a number between 0 and 1, got {quoted(epsilon)}"
            )
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "bool" and not isinstance(value, bool):
                raise ValueError(f"{field.name} must be true or false, got {quoted(value)}")
        eos = self.eos_token_id
        if eos is not None and (not isinstance(eos, int) or not 0 <= eos < self.vocab_size):
            raise ValueError(
                f"eos_token_id must be a token id below vocab_size={quoted(self.vocab_size)}, "
                f"got {quoted(eos)}"
            )

    @property
    def d_head(self) -> int:
        """Width of one head, K."""
        return self.n_embd // self.n_head

    @property
    def d_mlp(self) -> int:
        """Width of the hidden layer of an MLP, F."""
        return 4 * self.n_embd if self.n_inner is None else self.n_inner

    def attention_scale(self, layer: int) -> float:
        """What the scores q·k of a layer are multiplied by."""
        scale = 1 / math.sqrt(self.d_head) if self.scale_attn_weights else 1.0
        return scale / (layer + 1) if self.scale_attn_by_inverse_layer_idx else scale

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> GPT2Config:
        """The config of a `config.json`; settings that no logit depends on are passed over.

        Raises ValueError naming the setting when it is not GPT-2's, not supported or not known.
        """
        chosen = arithmetic_settings(settings, {field.name for field in fields(cls)})
        eos = chosen.pop("eos_token_id", None)
        config = cls(**chosen)
        # Fine-tunes and cut-down vocabularies leave lists and ids beyond the vocabulary behind;
        # they change no sum.
        fits = type(eos) is int and 0 <= eos < config.vocab_size
        return replace(config, eos_token_id=eos if fits else None)
