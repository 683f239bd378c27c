"""GPT-2 in plain torch as a good engineer writes it for speed: fused calls only, whole activations.

Dimension key as in `model.py`, and S tokens that stand before those of a row, whose keys and values
no variant changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ioi_fast import GPT2, GPT2Config
from ioi_fast.kernels.fp32_products import fp32_products, tf32_products
from ioi_fast.model.weights import Block

TANH = ("gelu_new", "gelu_pytorch_tanh")


class Layer(NamedTuple):
    """Weights of one layer: matrices and their biases in the products' type, which LayerNorm's
    have unless that is bf16."""

    ln_1_gain: Tensor
    ln_1_bias: Tensor
    w_qkv: Tensor  # [D, 3·H·K]
    b_qkv: Tensor
    w_o: Tensor  # [H·K, D]
    b_o: Tensor
    ln_2_gain: Tensor
    ln_2_bias: Tensor
    w_in: Tensor  # [D, F]
    b_in: Tensor
    w_out: Tensor  # [F, D]
    b_out: Tensor

    @classmethod
    def of(cls, block: Block, dtype: torch.dtype) -> Layer:
        """A block's weights for products in `dtype`."""
        found = {field.name: getattr(block, field.name) for field in fields(Block)}
        return cls(**{n: w if n.startswith("ln") else w.to(dtype) for n, w in found.items()})


class Passed(NamedTuple):
    """What a layer makes of its rows: heads [B, H, T, K], the rest [B, T, …]."""

    q: Tensor
    k: Tensor
    v: Tensor
    z: Tensor  # [B, T, H, K]
    attn_out: Tensor
    mid: Tensor
    out: Tensor

    def of(self, some: slice) -> Passed:
        """The same of some prompts."""
        return Passed(*(part[some] for part in self))


def normed(x: Tensor, gain: Tensor, bias: Tensor, epsilon: float, like: Tensor) -> Tensor:
    """LayerNorm of rows, which no precision rounds, in the type of a product's weights."""
    return F.layer_norm(x, x.shape[-1:], gain, bias, epsilon).to(like.dtype)


def mlp_step(x_RD: Tensor, layer: Layer, epsilon: float) -> Tensor:
    """The residual behind an MLP, [R, D] -> [R, D]."""
    rows = normed(x_RD, layer.ln_2_gain, layer.ln_2_bias, epsilon, layer.w_in)
    hidden_RF = F.gelu(torch.addmm(layer.b_in, rows, layer.w_in), approximate="tanh")
    return x_RD + torch.addmm(layer.b_out, hidden_RF, layer.w_out)


def split_heads(x_BTD: Tensor, layer: Layer, epsilon: float, K: int) -> tuple[Tensor, ...]:
    """q, k and v of rows, each [B, H, T, K]."""
    rows = normed(x_BTD, layer.ln_1_gain, layer.ln_1_bias, epsilon, layer.w_qkv)
    qkv = torch.addmm(layer.b_qkv, rows.flatten(0, 1), layer.w_qkv)
    B, T = x_BTD.shape[:2]
    return qkv.view(B, T, 3, -1, K).permute(2, 0, 3, 1, 4).unbind(0)


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float, mask_TS: Tensor | None = None) -> Tensor:
    """z [B, H, T, K] of heads; without a mask every token sees those up to itself."""
    causal = mask_TS is None
    return F.scaled_dot_product_attention(q, k, v, mask_TS, is_causal=causal, scale=scale)


def write(z_BTHK: Tensor, layer: Layer) -> Tensor:
    """What heads add to the residual, [B, T, H, K] -> [B, T, D]."""
    out = torch.addmm(layer.b_o, z_BTHK.flatten(0, 1).flatten(1), layer.w_o)
    return out.view(*z_BTHK.shape[:2], -1)


def clean_step(x_BTD: Tensor, layer: Layer, scale: float, epsilon: float, K: int) -> Passed:
    """One layer of a run that nothing changes, with all that it makes."""
    q, k, v = split_heads(x_BTD, layer, epsilon, K)
    z_BTHK = attend(q, k, v, scale).transpose(1, 2)
    attn_out = write(z_BTHK, layer)
    mid = x_BTD + attn_out
    out = mlp_step(mid.flatten(0, 1), layer, epsilon).view(x_BTD.shape)
    return Passed(q, k, v, z_BTHK, attn_out, mid, out)


def tail_step(
    x_PNTD: Tensor, k_NHSK: Tensor, v_NHSK: Tensor, mask_TS: Tensor, layer: Layer,
    scale: float, epsilon: float,
) -> Tensor:  # fmt: skip
    """One layer of variants on the tokens that they change, behind S that are the original's."""
    P, N, T, D = x_PNTD.shape
    q, k, v = split_heads(x_PNTD.flatten(0, 1), layer, epsilon, k_NHSK.shape[-1])
    k, v = behind(k_NHSK, k, P), behind(v_NHSK, v, P)
    z_BTHK = attend(q, k, v, scale, mask_TS).transpose(1, 2)
    mid = x_PNTD + write(z_BTHK, layer).view(P, N, T, D)
    return mlp_step(mid.view(-1, D), layer, epsilon).view(P, N, T, D)


def behind(before_NHSK: Tensor, own_BHTK: Tensor, P: int) -> Tensor:
    """Keys or values of variants behind those that all share, [P·N, H, S + T, K]."""
    return torch.cat([before_NHSK.expand(P, -1, -1, -1, -1).flatten(0, 1), own_BHTK], 2)


@dataclass(frozen=True, slots=True)
class Steps:
    """The functions in which nearly all time is spent, as they stand or compiled."""

    mlp: Callable = mlp_step
    tail: Callable = tail_step
    clean: Callable = clean_step

    @classmethod
    def compiled(cls, backend: str) -> Steps:
        """By torch.compile, once for any number of rows or variants."""
        return cls(*(_compiled(step, backend) for step in (mlp_step, tail_step, clean_step)))


def _compiled(step: Callable, backend: str) -> Callable:
    made = torch.compile(step, backend=backend)

    def run(x: Tensor, *more: object) -> object:
        # Of a view the tensor that it is a view of would be looked at too, and compiled for again.
        x = x.contiguous().data
        torch._dynamo.maybe_mark_dynamic(x, 0)
        return made(x, *more)

    return run


@dataclass(frozen=True, slots=True, eq=False)
class PlainGPT2:
    """A model's weights as plain torch wants them, in one precision of products."""

    config: GPT2Config
    layers: tuple[Layer, ...]
    wte: Tensor
    wpe: Tensor
    ln_f: tuple[Tensor, Tensor]
    unembed: Tensor
    precision: str
    steps: Steps = Steps()

    @classmethod
    def of(cls, model: GPT2, precision: str, steps: Steps = Steps()) -> PlainGPT2:
        """The same weights; raises ValueError for an activation that is not GPT-2's own."""
        model = model.to(dtype=torch.float64) if precision == "fp64" else model
        weights, config = model.weights, model.config
        if config.activation_function not in TANH:
            raise ValueError(f"model: its activation is {config.activation_function}, not GPT-2's")
        dtype = torch.bfloat16 if precision == "bf16" else weights.wte.dtype
        layers = tuple(Layer.of(block, dtype) for block in weights.blocks)
        ln_f = (weights.ln_f_gain, weights.ln_f_bias)
        return cls(
            config, layers, weights.wte, weights.wpe, ln_f, weights.unembed, precision, steps
        )

    @property
    def epsilon(self) -> float:
        return self.config.layer_norm_epsilon

    def embedded(self, tokens_NT: Tensor) -> Tensor:
        """The residual before the first layer, [N, T, D]."""
        return self.wte[tokens_NT] + self.wpe[: tokens_NT.shape[1]]

    def clean(self, tokens_NT: Tensor) -> list[Passed]:
        """Every layer of a run that nothing changes."""
        x, passed, step = self.embedded(tokens_NT), [], self.steps.clean
        for n, layer in enumerate(self.layers):
            scale = self.config.attention_scale(n)
            passed.append(step(x, layer, scale, self.epsilon, self.config.d_head))
            x = passed[-1].out
        return passed

    def mlp(self, n: int, x: Tensor) -> Tensor:
        """The residual behind a layer's MLP, [..., D] -> the same."""
        rows = x.reshape(-1, x.shape[-1])
        return self.steps.mlp(rows, self.layers[n], self.epsilon).view(x.shape)

    def read(self, final: Tensor, towards_ND: Tensor) -> Tensor:
        """Logit of the answer minus that of the wrong one, [..., N, D] -> [..., N], in fp32: both
        unembedding rows at END alone, subtracted before they are multiplied."""
        rows = F.layer_norm(final, final.shape[-1:], *self.ln_f, self.epsilon)
        return (rows * towards_ND).sum(-1)


@contextmanager
def products(precision: str) -> Iterator[None]:
    """Torch's products of fp32 are fp32, or TF32 where that is the precision, and as they were
    afterwards; nothing is kept for gradients."""
    rounded = tf32_products() if precision == "tf32" else nullcontext()
    with torch.no_grad(), fp32_products(), rounded:
        yield
