"""A model's weight matrices packed once for the CPU, each when it is first needed."""

from __future__ import annotations

from torch import Tensor

from ioi_fast.kernels.reference import Linear
from ioi_fast.model import GPT2
from ioi_fast.ops import Ops


class Packed:
    """Products of every layer of a model; kept with the model, so that packing is paid once.

    q stands apart from k and v as well as with them: at the end of a run only one query is asked.
    """

    def __init__(self, model: GPT2, ops: Ops) -> None:
        self._model, self._pack = model, ops.linear
        self._linears: dict[tuple[int, str], Linear] = {}
        self._unembed: Linear | None = None

    @classmethod
    def of(cls, model: GPT2, ops: Ops) -> Packed:
        """The weights of a model as a backend packs them."""
        if ops.packing not in model._packed:
            model._packed[ops.packing] = cls(model, ops)
        return model._packed[ops.packing]

    def linear(self, layer: int, name: str) -> Linear:
        """The product named "qkv", "q", "kv", "o", "mlp_in" or "mlp_out" of a layer."""
        if (layer, name) not in self._linears:
            self._linears[layer, name] = self._pack(*self._weight(layer, name))
        return self._linears[layer, name]

    @property
    def unembed(self) -> Linear:
        """The product with the unembedding, [R, D] -> [R, V]."""
        if self._unembed is None:
            self._unembed = self._pack(self._model.weights.unembed.T, None)
        return self._unembed

    def _weight(self, layer: int, name: str) -> tuple[Tensor, Tensor]:
        block, D = self._model.weights.blocks[layer], self._model.config.n_embd
        if name == "o":
            return block.w_o, block.b_o
        if name == "mlp_in":
            return block.w_in, block.b_in
        if name == "mlp_out":
            return block.w_out, block.b_out
        columns = {"qkv": slice(None), "q": slice(D), "kv": slice(D, None)}[name]
        return block.w_qkv[:, columns], block.b_qkv[columns]
