"""GPT-2's weights and its plain forward pass.

Dimension key: N prompts, T tokens (S source tokens), L layers, H heads, D model width,
K head width, F MLP width, V vocabulary, P variants, R rows (cells of variant, prompt and
position), E = 3·H·K.
"""

from __future__ import annotations

import copy
import hashlib
from dataclasses import replace

import torch
from torch import Tensor

from ioi_fast.kernels import reference
from ioi_fast.model import layers
from ioi_fast.model.config import GPT2Config
from ioi_fast.model.made_of_weights import MadeOfWeights
from ioi_fast.model.weights import Block, Weights, check_weights, without_gradients
from ioi_fast.outside.dense_tensors import why_not_dense
from ioi_fast.own_settings import own_settings


class GPT2:
    """A GPT-2 ready to run: `model(tokens)` gives the logits.

    Weights are shared with the caller, not copied. They may be changed in place or replaced
    (`model.weights = …`): what was made of them, packed products and the hash, is made again at the
    next call. Changes that torch does not count, through `tensor.data`, numpy or to tensors made in
    torch.inference_mode, need `model.refresh()`.

    Raises TypeError or ValueError naming a tensor of weights that no model can run on.
    """

    def __init__(
        self, config: GPT2Config, weights: Weights, *, tokenizer=None, name: str = "model"
    ) -> None:
        self.config = config
        self.weights = weights
        self.tokenizer = tokenizer
        self.name = name

    @property
    def weights(self) -> Weights:
        """The weights, which every call reads anew."""
        return self._weights

    @weights.setter
    def weights(self, weights: Weights) -> None:
        check_weights(weights)
        self._weights = without_gradients(weights)
        self.refresh()

    def refresh(self) -> None:
        """Forgets all that was made of the weights: for changes that torch does not count."""
        self._made: MadeOfWeights | None = None

    @property
    def made(self) -> MadeOfWeights:
        """What was made of the weights as they are now."""
        made = self._made  # another thread may forget it meanwhile
        if made is None or not made.still_true(self.config, self.weights):
            del made
            self.refresh()  # what was packed is freed before anything is packed again
            with own_settings():
                made = self._made = MadeOfWeights.of(self.config, self.weights)
        return made

    def __getstate__(self) -> dict[str, object]:
        """Without what can be made again: copies and pickles hold config, weights and tokenizer."""
        return {**self.__dict__, "_made": None}

    def __deepcopy__(self, memo: dict) -> GPT2:
        """A copy with weights of its own, also in a forked process."""
        memo[id(self)] = other = object.__new__(type(self))
        with own_settings():
            other.__dict__.update(copy.deepcopy(self.__getstate__(), memo))
        return other

    @classmethod
    def random(cls, config: GPT2Config | None = None, *, seed: int = 0) -> GPT2:
        """A model with random weights: biases that are not zero, LayerNorm gains that are not 1,
        attention that is far from uniform.

        >>> GPT2.random(GPT2Config(n_layer=2, n_head=2, n_embd=32, vocab_size=50), seed=1).name
        'random-1'
        """
        from ioi_fast.model.random_weights import random_weights

        config = GPT2Config() if config is None else config
        return cls(config, random_weights(config, seed), name=f"random-{seed}")

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.weights.wte.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return self.weights.wte.dtype

    def check_finite(self) -> None:
        """Raises ValueError naming a weight that is NaN or infinite; all are read again only after
        a change."""
        made = self.made
        if made.finite:
            return
        with own_settings():
            for name, tensor in self.weights.named().items():
                if not tensor.isfinite().all():
                    raise ValueError(f"model: {name} must be finite, got NaN or infinite values")
        made.finite = True

    def to(self, *, device: torch.device | str | None = None, dtype=None) -> GPT2:
        """The same model elsewhere or in another precision; self when nothing changes."""
        dtype = dtype or self.dtype
        with own_settings():
            weights = self.weights.to(self.device if device is None else device, dtype)
        if weights.wte.device == self.device and dtype == self.dtype:  # "cuda" may be "cuda:1"
            return self
        moved = GPT2(self.config, weights, tokenizer=self.tokenizer, name=self.name)
        if dtype in (self.dtype, torch.float64):  # a cast that keeps every value
            moved.made.weight_hash = self.made.weight_hash
        return moved

    def folded(self) -> GPT2:
        """The same model with LayerNorms folded into the matrices behind them, writes centred over
        the width and the unembedding centred over the vocabulary; b_V stays in the values.

        Logit differences do not move. Source: Wang et al. 2022, released code (paper section 0).

        >>> model = GPT2.random(GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=9))
        >>> bool((model.folded().weights.blocks[0].ln_1_gain == 1).all())
        True
        """
        from ioi_fast.model.folding import folded_config, folded_weights

        with own_settings():
            config, weights = folded_config(self.config), folded_weights(self.weights)
        return GPT2(config, weights, tokenizer=self.tokenizer, name=f"{self.name}, folded")

    def weight_hash(self) -> str:
        """SHA-256 over every weight in fp32: names the model in a result's provenance."""
        made = self.made
        if made.weight_hash is None:
            digest = hashlib.sha256(repr(replace(self.config, eos_token_id=None)).encode())
            for tensor in made.tensors:
                values = tensor.to("cpu", torch.float32).contiguous()
                digest.update(memoryview(values.numpy()).cast("B"))
            made.weight_hash = digest.hexdigest()
        return made.weight_hash

    def check_tokens(self, tokens: Tensor, argument: str = "tokens") -> None:
        """Raises TypeError or ValueError unless tokens are [N, T] ids that this model knows."""
        if isinstance(tokens, Tensor) and (other := why_not_dense(tokens)) is not None:
            raise TypeError(f"{argument} must be a dense int64 tensor [N, T], got {other}")
        if not isinstance(tokens, Tensor) or tokens.dtype != torch.int64 or tokens.dim() != 2:
            raise TypeError(f"{argument} must be an int64 tensor [N, T], got {_describe(tokens)}")
        N, T = tokens.shape
        if N < 1 or not 1 <= T <= self.config.n_positions:
            raise ValueError(
                f"{argument} must be [N, T] with N ≥ 1 and 1 ≤ T ≤ {self.config.n_positions}, "
                f"got {list(tokens.shape)}"
            )
        low, high = int(tokens.min()), int(tokens.max())
        if low < 0 or high >= self.config.vocab_size:
            wrong = low if low < 0 else high
            raise ValueError(
                f"{argument} must be ids from 0 to {self.config.vocab_size - 1}, got {wrong}"
            )

    def __call__(self, tokens: Tensor) -> Tensor:
        """Logits of every position, [N, T] int64 -> [N, T, V] float32.

        Raises TypeError or ValueError for tokens of a wrong type, shape or id.
        """
        with own_settings():
            self.check_tokens(tokens)
            if self.device.type == "cpu" and self.dtype == torch.float32:
                return self._packed_logits(tokens.to("cpu"))
            return self._plain_logits(tokens.to(self.device))

    def _packed_logits(self, tokens: Tensor) -> Tensor:
        """Logits from weights that are packed for the CPU, once for all calls."""
        from ioi_fast.engine import choose_ops
        from ioi_fast.engine.engine import Engine
        from ioi_fast.engine.logits import logits

        return logits(Engine.of(self, choose_ops.cpu()), tokens)

    def _plain_logits(self, tokens: Tensor) -> Tensor:
        """Logits on any device and in any precision."""
        weights, config = self.weights, self.config
        resid = layers.embedded(weights, tokens)
        for layer, block in enumerate(weights.blocks):
            resid = resid + self._attention(layer, block, resid)
            resid = resid + layers.mlp(resid, block, config)
        return layers.logits(resid, weights, config)

    def _attention(self, layer: int, block: Block, resid_pre: Tensor) -> Tensor:
        q, k, v = layers.projections(resid_pre, block, self.config)
        pattern = layers.attention_pattern(q, k, layer, self.config)
        return reference.attention_mix(pattern, v).flatten(-2) @ block.w_o + block.b_o

    def __repr__(self) -> str:
        config = self.config
        return (
            f"GPT2({self.name!r}, layers={config.n_layer}, heads={config.n_head}, "
            f"width={config.n_embd}, {self.dtype}, {self.device})"
        )


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{value.dtype} {list(value.shape)}"
    return type(value).__name__
