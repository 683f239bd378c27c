"""What the Triton kernels share: products by precision, and functions as differences.

Importing it needs triton. All arithmetic is fp32; bf16 lives only in memory and in the operands of
products. Formulas are those of torch_ops.py.
"""

from __future__ import annotations

import triton
import triton.language as tl

# A tensor stands first in expressions with these: on its left the interpreter keeps a constant one.
# gelu_new(x) = x·σ(a) with a = 2√(2/π)·(x + 0.044715·x³).
LINEAR = tl.constexpr(1.5957691216057308)
CUBIC = tl.constexpr(0.07135481282553498)
SATURATED = tl.constexpr(40.0)  # σ(±40) is 4e-18
CANCELLED = tl.constexpr(-0.5)  # relative change of a variance from which δ cancels its base


@triton.jit
def product(x, y, PRECISION: tl.constexpr):
    """x @ y with fp32 sums. PRECISION: "ieee", "tf32", "bf16", or "rounded", which is bf16 where
    bf16 has no arithmetic (the interpreter): fp32 operands that bf16 could hold.

    In "tf32" operands are rounded here: matrix units may drop the low bits of what they are given.
    """
    if PRECISION == "tf32":
        out = tl.dot(nearest_tf32(x), nearest_tf32(y), input_precision="tf32")
    elif PRECISION == "bf16":
        out = tl.dot(x.to(tl.bfloat16), y.to(tl.bfloat16), input_precision="ieee")
    elif PRECISION == "rounded":
        out = tl.dot(nearest_bf16(x), nearest_bf16(y), input_precision="ieee")
    else:
        out = tl.dot(x, y, input_precision="ieee")
    return out


@triton.jit
def nearest_bf16(x):
    """fp32 values rounded to bf16, to nearest even."""
    bits = x.to(tl.uint32, bitcast=True)
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def nearest_tf32(x):
    """fp32 values rounded to the ten bits after the point of TF32, to nearest even."""
    bits = x.to(tl.uint32, bitcast=True)
    bits = (bits + 0xFFF + ((bits >> 13) & 1)) & 0xFFFFE000
    # A GPU's own NaN is all ones, and would become zero.
    return tl.where(x == x, bits.to(tl.float32, bitcast=True), x)


@triton.jit
def expm1(x):
    """exp(x) − 1 without cancellation near 0."""
    series = x * (1 + x * (1 / 2 + x * (1 / 6 + x * (1 / 24 + x * (1 / 120 + x * (1 / 720))))))
    return tl.where(tl.abs(x) < 0.1, series, tl.exp(x) - 1)


@triton.jit
def sigmoid(x):
    """1/(1 + exp(−x)) for |x| ≤ SATURATED."""
    return 1 / (1 + tl.exp(-x))


@triton.jit
def gelu_change(x, delta):
    """gelu_new(x + δ) − gelu_new(x) = δ·σ(a) + (x + δ)·δσ, where δσ follows from b = δa:

    δσ = σ(a)·σ(−a)·(exp(b) − 1)/(σ(−a) + σ(a)·exp(b)).
    """
    exact = x * (x * x * CUBIC + LINEAR)
    a = tl.minimum(tl.maximum(exact, -SATURATED), SATURATED)
    sigma, opposite = sigmoid(a), sigmoid(-a)
    slope = (x * x * 3 + delta * (x * 3 + delta)) * CUBIC + LINEAR
    # What clamping took from a, where it is saturated, belongs to b.
    b = delta * slope + (exact - a)
    b = tl.minimum(tl.maximum(b, -(a + SATURATED)), -a + SATURATED)
    change = sigma * opposite * expm1(b) / (opposite + sigma * tl.exp(b))
    return delta * sigma + (x + delta) * change


@triton.jit
def normed_change(x, delta, gain, live, D, epsilon):
    """Change of a LayerNorm's output for one row; columns that are not live are zero.

    Where δ cancels most of x, both norms are taken and subtracted.
    """
    centred = tl.where(live, x - tl.sum(x, 0) / D, 0.0)
    r = tl.rsqrt(tl.sum(centred * centred, 0) / D + epsilon)
    move = tl.where(live, delta - tl.sum(delta, 0) / D, 0.0)
    u = tl.sum((2 * centred + move) * move, 0) / D * r * r
    s = tl.sqrt(tl.maximum(1 + u, 0.25))
    near = move * (r / s) - centred * (r * u / (s * (1 + s)))
    total = x + delta
    total = tl.where(live, total - tl.sum(total, 0) / D, 0.0)
    far = total * tl.rsqrt(tl.sum(total * total, 0) / D + epsilon) - centred * r
    return tl.where(u > CANCELLED, near, far) * gain
