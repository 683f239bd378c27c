"""Whole calls with a model elsewhere: the same answers, and nothing meets tensors of the host.

The device is pretended (pretend_device.py), its kernels run in the interpreter.
"""

from __future__ import annotations

import pytest
import torch
from pretend_device import DEVICE, Apart, Pretended, pretend_device
from small_models import ragged_pairs, shifted_pairs, tiny_model

from ioi_fast import Circuit, ablate, activation_patch, attention, explain, pair_sweep, path_patch
from ioi_fast.kernels import triton_ops
from ioi_fast.kernels.dense_linear import DenseLinear
from ioi_fast.placement import here

HOST, PAIRS = tiny_model(n_layer=2), ragged_pairs(3)
OF_HEADS = Circuit({"0.1": "S2", "1.0": "END"})
CALLS = {
    "logits": (path_patch, {"senders": ["0.1", "mlp0"]}),
    "receivers": (path_patch, {"senders": ["0.1"], "receivers": ["1.0.v", "mlp1"]}),
    "all positions": (path_patch, {"senders": ["0.1"], "receivers": ["1.0.q"], "position": None}),
    "whole vocabulary": (path_patch, {"senders": ["0.1"], "metric": "kl"}),
    "knock-out": (path_patch, {"senders": ["0.1"], "knock_out": {"0.0": "END", "mlp0": "S2"}}),
    "means by form": (ablate, {"variants": [{"0.1": "S2"}, {}], "source": "mean_by_form"}),
    "new": (ablate, {"variants": [{"0.1": "S2", "mlp1": "all"}], "source": "new"}),
    "circuit": (ablate, {"variants": [{"0.1": "S2"}], "base": OF_HEADS}),
    "z": (activation_patch, {"site": "z", "position": "END"}),
    "queries": (activation_patch, {"site": "q", "position": "S2", "heads": ["0.1", "1.0"]}),
    "residual": (activation_patch, {"site": "resid_pre"}),
    "each": (activation_patch, {"site": "mlp_out", "position": "each"}),
}


@pytest.fixture
def model():
    with pretend_device():
        yield HOST.to(device=DEVICE)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", list(CALLS))
def test_calls(kind: str, precision: str, model) -> None:
    call, asked = CALLS[kind]
    truth = call(HOST, PAIRS, **asked, precision=precision, backend="triton")
    got = call(model, PAIRS, **asked, precision=precision)
    assert got.backend == "triton/interpreter"
    assert got.provenance["device"] == str(DEVICE)
    assert type(got.values) is type(got.base) is torch.Tensor, "results are on the host"
    assert torch.equal(got.values, truth.values) and torch.equal(got.base, truth.base)
    plan = explain(call, model, PAIRS, **asked)
    assert plan.flops == explain(call, HOST, PAIRS, **asked).flops


def test_prompts_whose_roles_stand_elsewhere_in_new(model) -> None:
    pairs = shifted_pairs()
    asked = {"senders": ["0.1"], "receivers": ["1.0.k"], "position": "S2"}
    truth = path_patch(HOST, pairs, **asked, backend="triton")
    assert torch.equal(path_patch(model, pairs, **asked).values, truth.values)


def test_sweeps_over_pairs(model) -> None:
    truth = pair_sweep(HOST, PAIRS, ("v",), per_prompt=True, backend="triton")
    got = pair_sweep(model, PAIRS, ("v",), per_prompt=True)
    assert torch.equal(got.values, truth.values) and torch.equal(got.base, truth.base)


@pytest.mark.parametrize("after", [None, {"senders": ["0.0"], "receivers": ["1.1.q"]}], ids=str)
def test_patterns(after: dict | None, model) -> None:
    truth = attention(HOST, PAIRS, ["1.1"], after=after, backend="triton")
    got = attention(model, PAIRS, ["1.1"], after=after)
    assert type(got) is torch.Tensor and torch.equal(got, truth)


def test_callables_are_given_tensors_of_the_device(model) -> None:
    seen = []

    def metric(logits: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        seen.append((type(logits), type(prompt)))
        return logits[:, 0] * (prompt + 1)

    got = path_patch(model, PAIRS, ["0.1"], metric=metric)
    assert set(seen) == {(Pretended, Pretended)}
    truth = path_patch(HOST, PAIRS, ["0.1"], metric=metric, backend="triton")
    assert torch.equal(got.values, truth.values)


def test_logits(model) -> None:
    assert torch.allclose(model(PAIRS.orig).cpu(), HOST(PAIRS.orig), atol=1e-4)


def test_the_device_refuses_what_a_gpu_refuses() -> None:
    with pretend_device() as device, device:
        far, near = torch.ones(3), torch.ones(3, device="cpu")
        assert isinstance(far, Pretended) and type(near) is torch.Tensor
        assert isinstance(here(near), Pretended)
        for apart in (
            lambda: far + near,
            lambda: torch.cat([far, near]),
            lambda: near[torch.tensor([0])],
            lambda: far.__setitem__(torch.tensor([0, 1]), near[:2]),
            lambda: torch.where(near > 0, far, 0),
            lambda: far.index_select(0, torch.tensor([0], device="cpu")),
            lambda: far.numpy(),
        ):
            with pytest.raises(Apart):
                apart()
        assert type((far[torch.tensor([0], device="cpu")] + 1).cpu()) is torch.Tensor
        assert far.max(0).values.device == DEVICE and float(far.sum()) == 3.0


def test_fp32_is_fp32_whatever_the_process_allows(model, monkeypatch) -> None:
    """TF32 is off while a call runs, and on again after it."""
    seen, launch = [], triton_ops.launch_kernel

    def watched(*given: object, **more: object) -> None:
        seen.append(torch.get_float32_matmul_precision())
        launch(*given, **more)

    monkeypatch.setattr(triton_ops, "launch_kernel", watched)
    torch.set_float32_matmul_precision("high")
    try:
        path_patch(model, PAIRS, ["0.1"])
        assert set(seen) == {"highest"} and torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_products_in_bf16_sum_in_fp32() -> None:
    """By shapes and types alone: the product is a GPU's."""
    with torch.device("meta"):
        linear = DenseLinear(torch.empty(8, 5), None, "bf16")
        out = linear.delta(torch.empty(3, 8))
    assert out.shape == (3, 5) and out.dtype == torch.float32
    assert linear.weight.dtype == torch.float32, "kernels of our own round what they read"
