"""Whole calls with a model elsewhere: the same answers, and nothing meets tensors of the host.

The device is pretended (pretend_device.py), its kernels run in the interpreter.
"""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from pretend_device import DEVICE, SECOND, Apart, Pretended, pretend_device
from small_models import ragged_pairs, shifted_pairs, tiny_model

from ioi_fast import Circuit, ablate, activation_patch, attention, explain, pair_sweep, path_patch
from ioi_fast.engine.placement import here
from ioi_fast.kernels import triton_ops
from ioi_fast.kernels.dense_linear import DenseLinear
from ioi_fast.kernels.fp32_products import _get

HOST, PAIRS = tiny_model(n_layer=2), ragged_pairs(3)
OF_HEADS = Circuit({"0.1": "S2", "1.0": "END"})
CALLS = {
    "logits": (path_patch, {"senders": ["0.1", "mlp0"]}),
    "receivers": (
        path_patch,
        {"senders": ["0.1"], "receivers": ["1.0.v", "mlp1"], "position": "END"},
    ),
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
LATER = ("each", "residual", "z", "receivers", "new", "queries")  # of a kind with others, and slow


@pytest.fixture
def model():
    with pretend_device():
        yield HOST.to(device=DEVICE)


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind in LATER)) for kind in CALLS]
)
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


@pytest.mark.slow
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


@pytest.mark.parametrize(
    "kind",
    ["receivers", "knock-out", "means by form", pytest.param("each", marks=pytest.mark.slow)],
)
def test_the_second_gpu_is_as_good_as_the_first(kind: str, monkeypatch) -> None:
    """Nothing is made on torch's current device, and kernels are launched on the model's."""
    call, asked = CALLS[kind]
    truth = call(HOST, PAIRS, **asked, backend="triton")
    launched, current, launch = set(), [], triton_ops.launch_kernel

    def watched(kernel, programs, chosen, *given, **more) -> None:
        launched.update(tensor.device for tensor in given if isinstance(tensor, torch.Tensor))
        launch(kernel, programs, chosen, *given, **more)

    def opened(device: torch.device):
        current.append(device)
        return nullcontext()

    monkeypatch.setattr(triton_ops, "launch_kernel", watched)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device", opened)
    with pretend_device():
        model = HOST.to(device=SECOND)
        assert model.to(device="cuda:1") is model and model.to(device="cuda") is not model
        got = call(model, PAIRS, **asked)
    assert launched == {SECOND} and set(current) == {SECOND}
    assert got.provenance["device"] == "cuda:1"
    assert torch.equal(got.values, truth.values) and torch.equal(got.base, truth.base)


def test_what_forgets_which_gpu_is_seen(monkeypatch) -> None:
    """A planted fault: tensors of a call are made on the current GPU, which is the first."""
    forgetful = SimpleNamespace(**{**vars(torch), "get_default_device": lambda: "cuda"})
    monkeypatch.setattr("ioi_fast.engine.placement.torch", forgetful)
    with pretend_device(), pytest.raises(Apart, match="cuda:0 and cuda:1"):
        path_patch(HOST.to(device=SECOND), PAIRS, ["0.1"])


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
        second = torch.ones(3, device=SECOND)
        assert second.device == (second + 1)[:2].device == SECOND
        for apart in (
            lambda: far + second,
            lambda: torch.cat([second, far]),
            lambda: far[torch.tensor([0], device=SECOND)],
            lambda: second.__setitem__(0, far[0]),
        ):
            with pytest.raises(Apart, match="cuda:0 and cuda:1"):
                apart()
        assert second.to(DEVICE).device == far.copy_(second).device == DEVICE
        assert type((far[torch.tensor([0], device="cpu")] + 1).cpu()) is torch.Tensor
        assert far.max(0).values.device == DEVICE and float(far.sum()) == 3.0


def newer_interface() -> None:
    torch.backends.cuda.matmul.fp32_precision = "tf32"


@pytest.mark.parametrize(
    "allow",
    [
        lambda: torch.set_float32_matmul_precision("high"),
        pytest.param(
            newer_interface, marks=pytest.mark.skipif(_get is None, reason="torch 2.9 brought it")
        ),
    ],
    ids=["older interface", "newer interface"],
)
def test_fp32_is_fp32_whatever_the_process_allows(allow, model, monkeypatch) -> None:
    """TF32 is off while a call runs, and on again after it."""
    seen, launch = [], triton_ops.launch_kernel

    def allowed() -> bool:
        if _get is None:
            return torch.backends.cuda.matmul.allow_tf32
        return torch.backends.cuda.matmul.fp32_precision == "tf32"

    def watched(*given: object, **more: object) -> None:
        seen.append(allowed())
        launch(*given, **more)

    monkeypatch.setattr(triton_ops, "launch_kernel", watched)
    allow()
    try:
        path_patch(model, PAIRS, ["0.1"])
        assert set(seen) == {False} and allowed()
    finally:
        torch.set_float32_matmul_precision("highest")


def test_products_in_bf16_sum_in_fp32() -> None:
    """By shapes and types alone: the product is a GPU's."""
    with torch.device("meta"):
        linear = DenseLinear(torch.empty(8, 5), None, "bf16")
        out = linear.delta(torch.empty(3, 8))
    assert out.shape == (3, 5) and out.dtype == torch.float32
    assert linear.weight.dtype == torch.float32, "kernels of our own round what they read"
