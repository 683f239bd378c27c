"""Whole calls on the Triton kernels, in the interpreter, against the reference in float64."""

from __future__ import annotations

import pytest
import torch
from compare import assert_close, assert_sweep
from device import DEVICE, ON_GPU
from small_models import ragged_pairs, tiny_model
from torch.utils._python_dispatch import TorchDispatchMode

from ioi_fast import Circuit, ablate, activation_patch, attention, pair_sweep, path_patch
from ioi_fast.results.promised_accuracy import PROMISED

HOST, PAIRS = tiny_model(), ragged_pairs(3)
MODEL = HOST.to(device=DEVICE)
TRUE = {"backend": "reference", "precision": "fp64"}
FEW = ["0.1", "1.2", "mlp1", ["0.0", "2.1"]]


@pytest.mark.parametrize("between", ["mlps", "nothing"])
@pytest.mark.parametrize("receivers", ["logits", ["2.1.q"], ["2.0.v", "1.1.k", "mlp2"]], ids=str)
def test_path_patching(receivers: object, between: str, launches: list) -> None:
    asked = {"senders": FEW, "receivers": receivers, "position": "END", "between": between}
    truth = path_patch(HOST, PAIRS, **asked, **TRUE)
    result = path_patch(MODEL, PAIRS, **asked, backend="triton")
    assert_sweep(result.values, truth.values)
    assert result.backend == ("triton/cuda" if ON_GPU else "triton/interpreter")
    used = {name for name, _ in launches}
    assert {"readout_delta_kernel", "head_write_kernel"} <= used
    if between == "mlps":
        assert "mlp_in_delta_kernel" in used
    if receivers != "logits":
        assert {"attention_delta_queries", "attention_delta_last"} <= used


def test_bf16_of_a_path_patch() -> None:
    truth = path_patch(HOST, PAIRS, FEW, ["2.1.q"], **TRUE)
    result = path_patch(MODEL, PAIRS, FEW, ["2.1.q"], backend="triton", precision="bf16")
    assert result.precision == "bf16"
    assert_sweep(result.values, truth.values, 2e-2)
    with pytest.raises(AssertionError):
        assert_sweep(result.values, truth.values)


class PrecisionOfProducts(TorchDispatchMode):
    """What torch's own fp32 products may round their operands to, one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, function, types, arguments=(), more=None):
        if function is torch.ops.aten.mm.default:
            self.seen.append(torch.get_float32_matmul_precision())
        return function(*arguments, **(more or {}))


def test_tf32_is_of_differences_alone_and_of_calls_that_ask_for_it() -> None:
    """Both runs and a call in fp32 keep to fp32; the process's own setting is left as it was."""
    truth = path_patch(HOST, PAIRS, FEW, ["2.1.q"], **TRUE)
    before, seen = torch.get_float32_matmul_precision(), {}
    for precision in ("fp32", "tf32"):
        with PrecisionOfProducts() as products:
            asked = {"backend": "triton", "precision": precision}
            result = path_patch(MODEL, PAIRS, FEW, ["2.1.q"], **asked)
        assert result.precision == precision
        assert_sweep(result.values, truth.values, PROMISED[precision])
        seen[precision] = products.seen
    assert set(seen["fp32"]) == {"highest"}
    assert set(seen["tf32"]) == {"highest", "high"}
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.parametrize("base", ["model", Circuit({"1.0": "END", "0.1": "S2"})], ids=str)
def test_ablations(base: object) -> None:
    variants = [{"0.1": "S2"}, {"1.0": "END", "mlp0": "all"}, {}]
    for source in ("zero", "mean"):
        truth = ablate(HOST, PAIRS, variants, source, base, **TRUE)
        got = ablate(MODEL, PAIRS, variants, source, base, backend="triton")
        assert_sweep(got.values, truth.values)


def test_activation_patches_pairs_and_patterns() -> None:
    truth = activation_patch(HOST, PAIRS, "z", "END", ["0.1", "1.2"], **TRUE)
    got = activation_patch(MODEL, PAIRS, "z", "END", ["0.1", "1.2"], backend="triton")
    assert_sweep(got.values, truth.values)
    small, few = tiny_model(n_layer=2), ragged_pairs(2)
    truth = pair_sweep(small, few, ("q",), **TRUE)
    got = pair_sweep(small.to(device=DEVICE), few, ("q",), backend="triton")
    assert_close(got.effect, truth.effect)
    after = {"senders": ["0.0"], "receivers": ["1.1.q"]}
    truth = attention(HOST, PAIRS, ["2.1"], after=after, **TRUE)
    live_NT = torch.arange(truth.shape[2]) <= PAIRS.end[:, None]
    got = attention(MODEL, PAIRS, ["2.1"], after=after, backend="triton")
    assert_close(got[:, live_NT], truth[:, live_NT], 1e-5)
