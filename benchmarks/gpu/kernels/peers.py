"""What each kernel is held against: its definition in float64, the same definition compiled by
torch, and for attention torch's own fused form of the new run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ioi_fast.benchmarks.gpu.clock import Clock
from ioi_fast.benchmarks.gpu.units import Row
from ioi_fast.kernels import reference

Given = dict[str, object]
# Kinds of one operation that torch compiles anew (kind_of); beyond its own limit it would run the
# definition uncompiled, and not say so.
MOST_KINDS = 64
_COMPILED: set[tuple] = set()  # kinds that this process has compiled


def mlp_in_delta(
    pre_RF: Tensor, rows_RD: Tensor, weight_DF: Tensor, index_R: Tensor | None = None
) -> Tensor:
    """Change of an MLP's activation [R, F]: the reference's, and the product before it."""
    base = pre_RF if index_R is None else pre_RF[index_R]
    hidden = (rows_RD @ weight_DF).view(-1, *base.shape)
    return reference.gelu_delta(base, hidden, "gelu_new").view(len(rows_RD), -1)


DEFINITIONS: dict[str, Callable[..., Tensor]] = {
    "layernorm_delta": reference.layernorm_delta,
    "readout_delta": reference.readout_delta,
    "gelu_delta": reference.gelu_delta,
    "head_write": reference.head_write,
    "mlp_in_delta": mlp_in_delta,
    "attention_delta": reference.attention_delta,
}


def exact(operation: str, given: Given) -> Tensor:
    """The definition in float64, where its inputs are."""
    # The definition makes some tensors without naming a device.
    with next(one.device for one in given.values() if isinstance(one, Tensor)), torch.no_grad():
        return DEFINITIONS[operation](**{name: _double(one) for name, one in given.items()})


def _double(one: object) -> object:
    return one.double() if isinstance(one, Tensor) and one.is_floating_point() else one


def error_of(got: Tensor, truth: Tensor) -> float:
    """The largest error over the largest value; NaN where there is one."""
    return float((got.double() - truth).abs().max() / truth.abs().max())


def private(given: Given) -> Given:
    """The same inputs, but for what is written in place."""
    return {name: one.clone() if name == "delta_PCD" else one for name, one in given.items()}


@contextmanager
def products_in(precision: str, device: torch.device) -> Iterator[None]:
    """While it is open torch multiplies in a precision: fp32, tf32, or bf16 with fp32 between."""
    half = torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        with half:
            yield
    finally:
        torch.set_float32_matmul_precision(before)


@cache
def compiled(operation: str, backend: str) -> Callable[..., Tensor]:
    """A definition compiled by torch for shapes of every size."""
    return torch.compile(DEFINITIONS[operation], dynamic=True, backend=backend)


def beside_compiled(
    clock: Clock,
    operation: str,
    given: Given,
    truth: Tensor,
    precision: str,
    repeats: int,
    no_time: bool,
) -> Row:
    """Times and error of the compiled definition, or why it has none.

    Where there is no time, only what has been compiled before. It has inputs without gaps.
    """
    own = {n: one.contiguous() if isinstance(one, Tensor) else one for n, one in given.items()}
    own, kind = private(own), kind_of(operation, own, precision)
    # A dry run compiles each operation once: with a compiler that it does not time.
    seen = kind in _COMPILED or (not clock.on_gpu and operation in {one[0] for one in _COMPILED})
    if not clock.on_gpu and seen:
        return {"compiled": "left out: a dry run has it once"}
    if no_time and not seen:
        return {"compiled": "left out: no time"}
    _COMPILED.add(kind)
    backend = "inductor" if clock.on_gpu else "eager"
    begun = time.perf_counter()
    try:
        with _patient(), torch.no_grad(), products_in(precision, clock.device), clock.device:
            run = partial(compiled(operation, backend), **own)
            error = error_of(run(), truth)
            spent = time.perf_counter() - begun
            seconds = clock.cold_seconds(run, repeats)
    except Exception as problem:  # whatever a compiler may say
        return {"compiled": failure(problem)}
    found = {"compiled": backend, "compiled_seconds": seconds, "compiled_error": error}
    return {**found, "compile_seconds": spent if clock.on_gpu else None}


def failure(problem: Exception) -> str:
    """What went wrong, in one line; the rest of the row stays."""
    text = str(problem).strip().splitlines() or [""]
    return f"failed: {type(problem).__name__}: {text[0][:300]}"


def kind_of(operation: str, given: Given, precision: str) -> tuple:
    """What torch compiles an operation for, whatever the sizes: which tensors there are, and which
    of their axes have one place."""
    tensors = {name: one for name, one in given.items() if isinstance(one, Tensor)}
    axes = tuple((name, tuple(n == 1 for n in one.shape)) for name, one in tensors.items())
    return (operation, precision, axes)


def _patient() -> AbstractContextManager:
    """More kinds than torch compiles of its own accord, beyond which it raises."""
    from torch._dynamo import config

    wanted = {"recompile_limit": MOST_KINDS, "fail_on_recompile_limit_hit": True}
    return config.patch({name: one for name, one in wanted.items() if hasattr(config, name)})


def beside_sdpa(clock: Clock, given: Given, truth: Tensor, precision: str, repeats: int) -> Row:
    """Times and error of torch's fused attention of the new run less the base's z, or why not."""
    products = "tf32" if precision == "tf32" else "fp32"
    try:
        with torch.no_grad(), products_in(products, clock.device):
            run = fused(given, torch.bfloat16 if precision == "bf16" else torch.float32)
            error = error_of(run(), truth)
            return {"sdpa_seconds": clock.cold_seconds(run, repeats), "sdpa_error": error}
    except Exception as problem:
        return {"sdpa": failure(problem)}


def fused(given: Given, dtype: torch.dtype) -> Callable[[], Tensor]:
    """What computes the change of z [..., N, T, H, K] by torch's fused attention of the new run;
    the base's z, and which keys each query sees, stand ready."""
    q, k, v, scale = (given[name] for name in ("q_NTHK", "k_NSHK", "v_NSHK", "scale"))
    at, changed, table = (given.get(name) for name in ("at_NT", "changed_NC", "table"))
    base = reference.attention_mix(reference.attention_pattern(q, k, scale, at), v)
    seen = ~reference.later_keys(q, k, at)
    dq, dk, dv = (given[name] for name in ("delta_q", "delta_k", "delta_v"))
    P = dq.shape[:-4].numel()
    seen = seen.expand(P, len(q), *seen.shape[1:]).flatten(0, 1).contiguous()

    def together(whole: Tensor) -> Tensor:
        return whole.to(dtype).flatten(0, -4).transpose(1, 2)

    def run() -> Tensor:
        new = (q + dq, added(k, dk, changed), added(v, dv, changed))
        z = F.scaled_dot_product_attention(*map(together, new), attn_mask=seen, scale=scale)
        change = z.transpose(1, 2).float().view(dq.shape) - base
        return reference.by_table(change, table, given.get("sources"))

    return run


def added(base: Tensor, delta: Tensor, changed: Tensor | None) -> Tensor:
    """Rows of the base [N, S, H, K] and what is private at their places, [..., N, S, H, K]."""
    if changed is None:
        return base + delta
    used = (changed >= 0)[:, :, None, None]
    place = changed.clamp(min=0)[:, :, None, None].expand(delta.shape)
    whole = base.expand(*delta.shape[:-4], *base.shape).clone()
    return whole.scatter_add_(-3, place, delta * used)
