"""A model's weight matrices as a backend packs them, each when it is first needed."""

from __future__ import annotations

from torch import Tensor

from ioi_fast.engine.ops import Ops
from ioi_fast.kernels.reference import Linear
from ioi_fast.model.gpt2 import GPT2


class PackedWeights:
    """Products of every layer of a model; kept with it until its weights change.

    q stands apart from k and v as well as with them: at the end of a run only one query is asked.
    """

    def __init__(self, model: GPT2, ops: Ops) -> None:
        self._weights, self._width, self._pack = model.weights, model.config.n_embd, ops.linear
        self._linears: dict[tuple[int, str], Linear] = {}
        self._unembed: Linear | None = None

    @classmethod
    def of(cls, model: GPT2, ops: Ops) -> PackedWeights:
        """The weights of a model as a backend packs them."""
        packed = model.made.packed
        if ops.packing not in packed:
            packed[ops.packing] = cls(model, ops)
        return packed[ops.packing]

    def linear(self, layer: int, name: str) -> Linear:
        """The product named "qkv", "q", "kv", "o", "mlp_in" or "mlp_out" of a layer."""
        if (layer, name) not in self._linears:
            self._linears[layer, name] = self._pack(*self._weight(layer, name))
        return self._linears[layer, name]

    @property
    def unembed(self) -> Linear:
        """The product with the unembedding, [R, D] -> [R, V]."""
        if self._unembed is None:
            self._unembed = self._pack(self._weights.unembed.T, None)
        return self._unembed

    def _weight(self, layer: int, name: str) -> tuple[Tensor, Tensor]:
        block, D = self._weights.blocks[layer], self._width
        if name == "o":
            return block.w_o, block.b_o
        if name == "mlp_in":
            return block.w_in, block.b_in
        if name == "mlp_out":
            return block.w_out, block.b_out
        columns = {"qkv": slice(None), "q": slice(D), "kv": slice(D, None)}[name]
        return block.w_qkv[:, columns], block.b_qkv[columns]
