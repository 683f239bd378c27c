"""Products on weights in panels and the MLP made of them, in fp32 and in bf16."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from compare import assert_close, normal

from ioi_fast.calls.surroundings import surroundings
from ioi_fast.kernels import cpu_ops, reference, torch_ops
from ioi_fast.kernels.build import load_kernels
from ioi_fast.kernels.packed_linear import PackedLinear
from ioi_fast.kernels.panel_linear import PanelLinear


def usable(dtype: torch.dtype) -> bool:
    """Whether panels of this type can be multiplied: portable builds do it step by step."""
    ops = torch.ops.ioi_fast
    return dtype == torch.float32 or not ops.panels_supported() or ops.bf16_panels_supported()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("rows", [1, 13, 14, 15, 57, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("K", "out"), [(1, 1), (7, 31), (64, 32), (33, 100), (128, 384), (1601, 40)]
)
def test_panel_linear(K: int, out: int, dtype: torch.dtype, rows: int, threads: int) -> None:
    """Strips, blocks and panels of every height, with their remainders; the bias only if asked."""
    load_kernels()
    weight, bias, x = (normal(*s, seed=i) for i, s in enumerate([(K, out), (out,), (rows, K)]))
    if not usable(dtype):
        pytest.skip("no bf16 panels here")
    packed = PanelLinear(weight.to(dtype), bias)
    truth = x.to(dtype).double() @ weight.to(dtype).double()
    with surroundings(threads):
        assert_close(packed.delta(x), truth, 3e-6, what="product")
        assert_close(packed(x), truth + bias, 3e-6, what="product and bias")
    assert packed(x).is_contiguous() and packed(x[:0]).shape == (0, out)


@pytest.mark.parametrize("bits", [0x7FFFFFFF, 0x7FC00000, 0x7F800001, -1, 0x7F800000, 0x7F7FFFFF])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_no_number_stays_so(dtype: torch.dtype, bits: int) -> None:
    """Rounded by its bits alone, a NaN of many ones would become zero."""
    load_kernels()
    if not usable(dtype):
        pytest.skip("no bf16 panels here")
    x = torch.tensor([[bits, 0]], dtype=torch.int32).view(torch.float32)
    weight = torch.tensor([[1.0], [0.5]])
    out = PanelLinear(weight.to(dtype), None).delta(x)
    assert torch.equal(out.isnan(), x[:, :1].isnan())
    assert out.isnan().all() or out.item() == x[0, 0].to(dtype).float().item()


@pytest.mark.parametrize("size", [1e3, 3.0, 1e-2, 1e-5])
@pytest.mark.parametrize("activation", ["gelu_new", "gelu", "relu"])
@pytest.mark.parametrize(
    "shape", [(40, 3, 32, 96), (1, 17, 24, 40), (7, 1, 48, 600), (9, 4, 40, 1700)]
)
def test_mlp_delta(shape: tuple, activation: str, size: float, form: ModuleType) -> None:
    """Variants that share a base row, rows of their own, widths that are no whole panels."""
    P, N, D, F = shape
    x, gain, pre = normal(N, D, seed=1, size=2), normal(D, seed=2), normal(N, F, seed=3, size=2)
    w_in, w_out = normal(D, F, seed=4, size=D**-0.5), normal(F, D, seed=5, size=F**-0.5)
    delta, weights = normal(P, N, D, seed=6, size=size), (w_in, w_out)
    exact = [PackedLinear(weight.double(), None, onednn=False) for weight in weights]
    inputs = [t.double() for t in (x, pre, delta, gain)]
    truth = reference.mlp_delta(*inputs, 1e-5, *exact, activation)
    packed = [form.linear(weight, None) for weight in weights]
    out = form.mlp_delta(x, pre, delta, gain, 1e-5, *packed, activation)
    assert_close(out, truth, 3e-6, what="mlp_delta")
    summed = delta.clone()
    form.add_mlp_delta(x, pre, summed, gain, 1e-5, *packed, activation)
    assert torch.equal(summed, delta + out)
    if form is cpu_ops:
        fused = [PanelLinear(weight, None) for weight in weights]
        out = form.mlp_delta(x, pre, delta, gain, 1e-5, *fused, activation)
        assert_close(out, truth, 3e-6, what="fused mlp_delta")
        summed = delta.clone()
        assert form.add_mlp_delta(x, pre, summed, gain, 1e-5, *fused, activation) is summed
        assert torch.equal(summed, delta + out)


@pytest.mark.parametrize("order", ["ascending", "any", "one base"])
def test_mlp_delta_of_rows_that_name_their_base(order: str, form: ModuleType) -> None:
    R, N, D, F = 150, 7, 48, 300
    index = torch.randint(N, (R,), generator=torch.Generator().manual_seed(0))
    index = {"ascending": index.sort().values, "any": index, "one base": index * 0 + 3}[order]
    x, pre = normal(N, D, seed=1, size=2), normal(N, F, seed=2, size=2)
    delta, gain = normal(R, D, seed=3), normal(D, seed=4)
    weights = [PackedLinear(normal(D, F, seed=5), None), PackedLinear(normal(F, D, seed=6), None)]
    expected = torch.stack(
        [
            torch_ops.mlp_delta(
                x[n : n + 1], pre[n : n + 1], row[None], gain, 1e-5, *weights, "relu"
            )[0]
            for n, row in zip(index.tolist(), delta, strict=True)
        ]
    )
    out = form.mlp_delta(x, pre, delta, gain, 1e-5, *weights, "relu", index)
    assert_close(out, expected, 2e-6, what="mlp_delta with index")
    if form is cpu_ops:
        fused = [PanelLinear(normal(D, F, seed=5), None), PanelLinear(normal(F, D, seed=6), None)]
        rows = (x[index], pre[index], delta)
        for activation in reference.ACTIVATIONS:
            expected = torch_ops.mlp_delta(*rows, gain, 1e-5, *weights, activation)
            out = form.mlp_delta(x, pre, delta, gain, 1e-5, *fused, activation, index)
            assert_close(out, expected, 3e-6, what=f"fused mlp_delta of {activation} with index")


@pytest.mark.parametrize("size", [3.0, 1e-2, 1e-5])
@pytest.mark.parametrize("activation", ["gelu_new", "gelu", "relu"])
@pytest.mark.parametrize(
    "shape", [(40, 3, 32, 96), (1, 17, 25, 41), (7, 1, 48, 600), (3, 50, 33, 1701)]
)
def test_mlp_delta_in_bf16(shape: tuple, activation: str, size: float) -> None:
    """Both products take rounded operands, and nothing else is rounded."""
    load_kernels()
    if not usable(torch.bfloat16):
        pytest.skip("no bf16 panels here")
    P, N, D, F = shape
    x, gain, pre = normal(N, D, seed=1, size=2), normal(D, seed=2), normal(N, F, seed=3, size=2)
    w_in, w_out = normal(D, F, seed=4, size=D**-0.5), normal(F, D, seed=5, size=F**-0.5)
    delta, weights = normal(P, N, D, seed=6, size=size), (w_in.bfloat16(), w_out.bfloat16())
    fused = [PanelLinear(weight, None) for weight in weights]
    out = cpu_ops.mlp_delta(x, pre, delta, gain, 1e-5, *fused, activation)
    normed = torch_ops.layernorm_delta(x, delta, gain, 1e-5).bfloat16().double()
    hidden = reference.gelu_delta(pre.double(), normed @ weights[0].double(), activation)
    truth = hidden.bfloat16().double() @ weights[1].double()
    # A value on the edge between two bf16 may fall to either side: one in some hundred rounds off.
    assert_close(out, truth, 1e-3, what="mlp_delta in bf16")
    index = torch.arange(N).repeat(P)
    rows = (x, pre, delta.reshape(-1, D), gain, 1e-5)
    named = cpu_ops.mlp_delta(*rows, *fused, activation, index)
    assert torch.equal(named.view_as(out), out)


@pytest.mark.parametrize(
    "value", [0.0, -0.0, 1.0, 1 + 2**-8, 1 + 3 * 2**-8, 3e38, torch.inf, torch.nan]
)
def test_rows_are_rounded_to_bf16_as_torch_does(value: float) -> None:
    """To nearest, ties to even; a number never becomes none."""
    load_kernels()
    if not usable(torch.bfloat16):
        pytest.skip("no bf16 panels here")
    rows = torch.tensor([[value, 0.0], [-value, 0.0]])
    product = PanelLinear(torch.ones(2, 1).bfloat16(), None).delta(rows)
    assert torch.equal(product.isnan(), rows[:, :1].isnan())
    wanted = rows[:, :1].bfloat16().float()
    assert torch.equal(product.nan_to_num(), wanted.nan_to_num())


@pytest.mark.parametrize("activation", sorted(reference.ACTIVATIONS))
@pytest.mark.parametrize("shape", [(1, 24, 40), (131, 48, 600), (5, 40, 1700)])
def test_mlp(shape: tuple, activation: str, form: ModuleType) -> None:
    R, D, F = shape
    x, gain, bias = normal(R, D, seed=1, size=2), normal(D, seed=2), normal(D, seed=3)
    weights = [(normal(D, F, seed=4), normal(F, seed=5)), (normal(F, D, seed=6), normal(D, seed=7))]
    exact = [PackedLinear(w.double(), b.double(), onednn=False) for w, b in weights]
    truth = reference.mlp(*(t.double() for t in (x, gain, bias)), 1e-5, *exact, activation)
    for pack in {form.linear, PanelLinear if form is cpu_ops else form.linear}:
        packed = [pack(*weight) for weight in weights]
        for out, wanted in zip(
            form.mlp(x, gain, bias, 1e-5, *packed, activation), truth, strict=True
        ):
            assert_close(out, wanted, 3e-6, what="mlp")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_do_not_change_a_bit_of_a_product(threads: int, dtype: torch.dtype) -> None:
    load_kernels()
    if not usable(dtype):
        pytest.skip("no bf16 panels here")
    weights = (normal(32, 32, seed=seed).to(dtype) for seed in (1, 2))
    w_in, w_out = (PanelLinear(weight, None).panels for weight in weights)
    x, delta, gain = normal(9, 32, seed=3), normal(31, 9, 32, seed=4), normal(32, seed=5)

    def run() -> list[torch.Tensor]:
        product = torch.ops.ioi_fast.panel_linear(delta.flatten(0, 1), w_in, None, 32)
        return [product, torch.ops.ioi_fast.mlp_delta(x, x, delta, gain, w_in, w_out, 1e-5)]

    expected = run()
    with surroundings(threads):
        assert all(torch.equal(*both) for both in zip(run(), expected, strict=True))


def test_weights_that_do_not_fit_are_refused() -> None:
    load_kernels()
    ops, panels = torch.ops.ioi_fast, PanelLinear(torch.ones(8, 40), None).panels
    with pytest.raises(RuntimeError, match="panels must be"):
        ops.panel_linear(torch.ones(3, 7), panels, None, 40)
    with pytest.raises(RuntimeError, match="bias must be"):
        ops.panel_linear(torch.ones(3, 8), panels, torch.ones(40), 40)
    with pytest.raises(RuntimeError, match="rows must be float32"):
        ops.panel_linear(torch.ones(3, 8).double(), panels, None, 40)
    base, pre, gain = torch.ones(2, 8), torch.ones(2, 40), torch.ones(8)
    out = PanelLinear(torch.ones(40, 8), None).panels
    with pytest.raises(RuntimeError, match="delta must be"):
        ops.mlp_delta(base, pre, torch.ones(5, 3, 8), gain, panels, out, 1e-5)
    with pytest.raises(RuntimeError, match="index must be from 0 to 1"):
        index = torch.tensor([0, 1, 2])
        ops.mlp_delta(base, pre, torch.ones(3, 8), gain, panels, out, 1e-5, index)
    with pytest.raises(RuntimeError, match="w_out must be"):
        ops.mlp_delta(base, pre, torch.ones(5, 2, 8), gain, panels, panels, 1e-5)
    halves = PanelLinear(torch.ones(40, 8).bfloat16(), None).panels
    with pytest.raises(RuntimeError, match="must be of one precision"):
        ops.mlp_delta(base, pre, torch.ones(5, 2, 8), gain, panels, halves, 1e-5)
    with pytest.raises(RuntimeError, match="panels must be"):
        ops.panel_linear(torch.ones(3, 39), halves[:, :, :, :1].contiguous(), None, 8)
