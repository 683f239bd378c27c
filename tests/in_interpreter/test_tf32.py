"""Differences in TF32: operands are rounded by us, so that whatever a GPU does with their low bits
the answer is one; products of such operands in fp32 are those of TF32."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl
from changed_logits import CALLS, model, of_logits
from compare import assert_close, normal
from device import DEVICE, ON_GPU
from small_models import ragged_pairs, tiny_model
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from triton.runtime.interpreter import interpreter_builder

from ioi_fast import path_patch
from ioi_fast.kernels import reference, triton_math, triton_ops, triton_products, triton_rows
from ioi_fast.results.promised_accuracy import TF32_LOGITS, TF32_MEDIAN, sweep_errors

LOW_BITS = 0x1FFF  # of an fp32, which TF32 has not


@triton.jit
def cut_off(x):
    """What some GPUs make of operands."""
    bits = x.to(tl.uint32, bitcast=True) & 0xFFFFE000
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def untouched(x):
    return x


def plant(monkeypatch: pytest.MonkeyPatch, rounding) -> None:
    for module in (triton_math, triton_products, triton_rows):
        monkeypatch.setattr(module, "nearest_tf32", rounding)


def is_tf32(values: Tensor) -> bool:
    return not bool((values.contiguous().view(torch.int32) & LOW_BITS).any())


def nearest(values: Tensor) -> Tensor:
    """To 11 binary digits, half to even, by arithmetic of float64."""
    digits, exponent = torch.frexp(values.double())
    return torch.ldexp((digits * 2**11).round() / 2**11, exponent).float()


def test_rounding_is_to_nearest_even() -> None:
    with torch.device(DEVICE):
        halves = (1 + (2 * torch.arange(-64, 64) + 1) * 2.0**-11).float()
        ends = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, 3.4e38, 1e-37])
        given = torch.cat([halves, ends, normal(1500, seed=1), -(normal(70, seed=2).exp())])
        assert torch.equal(triton_ops.to_tf32(given), nearest(given))
        # A GPU's own NaN, and those of the other sign and of few bits.
        nan = torch.tensor([0x7FFFFFFF, -1, 0x7FC00000, 0x7F800001], dtype=torch.int32)
        assert bool(triton_ops.to_tf32(nan.view(torch.float32)).isnan().all())
        columns = normal(70, 9, seed=3).T
        assert torch.equal(triton_ops.to_tf32(columns), nearest(columns))


def test_products_are_of_rounded_operands() -> None:
    with torch.device(DEVICE):
        rows, weight = normal(15, 33, seed=3), normal(33, 70, seed=1, size=0.2)
        product = triton_ops.linear(weight, None, "tf32")
        truth = nearest(rows).double() @ nearest(weight).double()
        assert is_tf32(product.weight)
        assert_close(product.delta(rows), truth, 3e-6)
        pre = normal(5, 70, seed=2)
        hidden = triton_ops.mlp_in_delta(pre, rows, product.weight, precision="tf32")
        truth = reference.gelu_delta(pre.double(), truth.view(3, 5, 70), "gelu_new").flatten(0, 1)
        assert is_tf32(hidden)
        assert_close(hidden, truth, 2**-11 + 5e-6)


class Operands(TorchDispatchMode):
    """What torch's own products are given while they may be TF32."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def __torch_dispatch__(self, function, types, arguments=(), more=None):
        allowed = torch.get_float32_matmul_precision() != "highest"
        if allowed and function is torch.ops.aten.mm.default:
            self.seen += arguments[:2]
        return function(*arguments, **(more or {}))


def operands_of_a_call(T: int, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """All operands of TF32 products, torch's and the kernels', of a prompt of T tokens."""
    seen, dot = [], type(interpreter_builder).create_dot

    def watched(builder, x, y, total, precision, *more):
        if "TF32" in str(precision):
            seen.extend(torch.from_numpy(operand.data.copy()) for operand in (x, y))
        return dot(builder, x, y, total, precision, *more)

    monkeypatch.setattr(type(interpreter_builder), "create_dot", watched)
    small = tiny_model(n_layer=2, n_head=2, n_embd=16, n_positions=80)
    asked = {"senders": ["0.1"], "receivers": ["1.0.q", "1.1.v"], "position": None}
    with Operands() as operands:
        path_patch(small, ragged_pairs(1, T), **asked, backend="triton", precision="tf32")
    assert seen and operands.seen
    return seen + operands.seen


@pytest.mark.skipif(ON_GPU, reason="of the interpreter's products")
@pytest.mark.parametrize("T", [7, 66])
def test_every_operand_of_a_call_is_rounded(T: int, monkeypatch, launches: list) -> None:
    seen = operands_of_a_call(T, monkeypatch)
    assert len(seen) > 9 and all(is_tf32(operand) for operand in seen)
    kernels = {name for name, _ in launches}
    assert "mlp_in_delta_kernel" in kernels
    assert ("attention_delta_long" if T > 64 else "attention_delta_queries") in kernels


@pytest.mark.skipif(ON_GPU, reason="of the interpreter's products")
def test_operands_that_are_not_rounded_are_seen(monkeypatch) -> None:
    """A planted fault."""
    plant(monkeypatch, untouched)
    assert not all(is_tf32(operand) for operand in operands_of_a_call(7, monkeypatch))


def errors_of(kind: str, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """Of each variant's change of the logits along two random directions."""
    moved = model().to(device=DEVICE)
    monkeypatch.setattr("changed_logits.DIRECTIONS", 2)
    truth = of_logits(*CALLS[kind], backend="reference", precision="fp64")
    monkeypatch.setattr("changed_logits.model", lambda: moved)
    values = of_logits(*CALLS[kind], backend="triton", precision="tf32")
    monkeypatch.setattr("changed_logits.model", model)
    return sweep_errors(values, truth)


@pytest.mark.slow
def test_what_changes_in_the_logits(monkeypatch) -> None:
    errors = errors_of("receivers" if ON_GPU else "a circuit", monkeypatch)
    said = f"median {errors.median():.1e}, worst {errors.max():.1e}"
    assert errors.median() <= TF32_MEDIAN and errors.max() <= TF32_LOGITS, said
    assert errors.median() > 2e-5, "these are not differences in TF32"


@pytest.mark.slow
@pytest.mark.skipif(ON_GPU, reason="a planted fault is compiled with what was there before")
def test_operands_that_are_cut_off_would_miss_by_twice_as_much(monkeypatch) -> None:
    errors = errors_of("a circuit", monkeypatch)
    assert errors.median() <= TF32_MEDIAN and errors.max() <= TF32_LOGITS
    plant(monkeypatch, cut_off)
    cut = errors_of("a circuit", monkeypatch)
    assert cut.median() > 1.5 * errors.median() and cut.max() > 1.5 * errors.max()
