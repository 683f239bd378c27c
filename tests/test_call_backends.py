"""Which backend runs a call: a named one runs or raises, "auto" may fall back and says so."""

from __future__ import annotations

import re
import warnings

import pytest
import torch
from pretend_device import pretend_device
from small_models import ragged_pairs, tiny_model

from ioi_fast import GPT2, PromptPairs, ablate, activation_patch, attention, path_patch
from ioi_fast.ops import why_not_triton


@pytest.fixture(scope="module")
def model() -> GPT2:
    return tiny_model()


@pytest.fixture(scope="module")
def pairs() -> PromptPairs:
    return ragged_pairs()


def refused(*parts: str):
    """Expects a RuntimeError whose message holds all parts, in this order."""
    return pytest.raises(RuntimeError, match="(?s)" + ".*".join(re.escape(p) for p in parts))


def test_triton_says_why_it_can_not_run(model, pairs, monkeypatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr("ioi_fast.ops.find_spec", lambda name: object())
    for found, reason in (
        (False, "torch sees no GPU: TRITON_INTERPRET=1"),
        (True, "the model is on the CPU: load it with device='cuda'"),
    ):
        monkeypatch.setattr("torch.cuda.is_available", lambda found=found: found)
        with refused(f"backend 'triton' can't run this: {reason}"):
            path_patch(model, pairs, backend="triton")
    monkeypatch.setattr("ioi_fast.ops.find_spec", lambda name: None)
    with refused("backend 'triton' can't run this: triton is not installed: pip install"):
        path_patch(model, pairs, backend="triton")
    with refused("backend 'triton' can't run this: precision 'fp64'"):
        path_patch(model, pairs, backend="triton", precision="fp64")


def test_a_gpu_that_is_too_old_is_named(monkeypatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr("ioi_fast.ops.find_spec", lambda name: object())
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (7, 5))
    device = torch.device("cuda:0")
    assert "compute capability 7.5, the kernels need 8.0" in why_not_triton(device)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (8, 0))
    assert why_not_triton(device) is None


def test_a_model_on_a_gpu_falls_back_where_triton_is_missing(model, pairs, monkeypatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr("ioi_fast.ops.find_spec", lambda name: None)
    with pretend_device() as device:
        moved = model.to(device=device)
        with refused("backend 'triton' can't run this: triton is not installed"):
            path_patch(moved, pairs, backend="triton")
        with refused("backend 'cpu' can't run this: the model is on cuda:0"):
            path_patch(moved, pairs, backend="cpu")
        with pytest.warns(UserWarning, match="reference backend, slowly: triton is not") as caught:
            result = path_patch(moved, pairs, ["0.0"])
    assert len(caught) == 1 and result.backend == "reference"
    assert torch.equal(result.values, path_patch(model, pairs, ["0.0"], backend="reference").values)


def test_a_named_backend_that_can_not_run_says_why(model, pairs) -> None:
    for arguments, reason in (
        ({"precision": "fp64"}, "precision 'fp64' belongs to the reference backend"),
    ):
        with refused("backend 'cpu' can't run this", reason):
            path_patch(model, pairs, backend="cpu", **arguments)
    with refused("backend 'cpu' can't run this: precision 'fp64'"):
        attention(model, pairs, ["0.0"], backend="cpu", precision="fp64")
    for call in (activation_patch, lambda *given, **rest: ablate(*given, [{}], **rest)):
        with refused("backend 'cpu' can't run this: precision 'fp64'"):
            call(model, pairs, backend="cpu", precision="fp64")
    for name in ("reference", "auto"):
        with refused("precision 'bf16' belongs to the fast path"):
            path_patch(model.to(dtype=torch.float64), pairs, backend=name, precision="bf16")
    with refused("backend 'cpu' can't run this: precision 'tf32' is of GPUs"):
        path_patch(model, pairs, backend="cpu", precision="tf32")
    for name in ("reference", "auto"):
        with refused("precision 'tf32' belongs to the fast path"):
            path_patch(model, pairs, backend=name, precision="tf32")
    double = model.to(dtype=torch.float64)
    with refused("backend 'cpu' can't run this: the weights are float64, not float32"):
        path_patch(double, pairs, backend="cpu")


def test_the_reference_can_not_bound_its_memory(model, pairs) -> None:
    with refused("backend 'reference' can't bound its memory"):
        path_patch(model, pairs, backend="reference", max_memory=10**9)
    with refused("can't bound its memory", "the weights are float64"):
        path_patch(model.to(dtype=torch.float64), pairs, max_memory=10**9)


def test_auto_takes_the_fast_path_silently(model, pairs) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert path_patch(model, pairs, ["0.0"]).backend.startswith("cpu/")
        assert activation_patch(model, pairs, "z", "END", ["0.0"]).backend.startswith("cpu/")
        assert ablate(model, pairs, [{"0.0": "END"}]).backend.startswith("cpu/")
        exact = path_patch(model, pairs, ["0.0"], precision="fp64")
    assert (exact.backend, exact.precision) == ("reference", "fp64")


def test_auto_falls_back_and_says_so_once_where_it_was_called(model, pairs) -> None:
    for call, reason in (
        (lambda: path_patch(model.to(dtype=torch.float64), pairs, ["0.0"]), "weights are float64"),
        (lambda: attention(model.to(dtype=torch.float64), pairs, ["0.0"]), "weights are float64"),
    ):
        with pytest.warns(UserWarning, match=f"runs the reference backend.*{reason}") as caught:
            result = call()
        assert len(caught) == 1 and caught[0].filename == __file__
        assert isinstance(result, torch.Tensor) or result.backend == "reference"


def test_a_named_backend_runs_silently(model, pairs) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("reference", "cpu"):
            result = path_patch(model, pairs, ["0.0"], backend=name)
            assert result.backend.split("/")[0] == name
        ablate(model, pairs, [{}], backend="reference")


def test_precision_is_the_one_that_ran(model, pairs) -> None:
    """A double model asked for fp32 runs in fp32, and the other way round."""
    double = model.to(dtype=torch.float64)
    for precision in ("fp32", "fp64"):
        single = path_patch(model, pairs, backend="reference", precision=precision)
        other = path_patch(double, pairs, backend="reference", precision=precision)
        assert torch.equal(single.values, other.values) and other.precision == precision
    with pytest.warns(UserWarning, match="the weights are float64"):
        assert path_patch(double, pairs, ["0.0"]).backend == "reference"
