"""Which backend runs a call: a named one runs or raises, "auto" may fall back and says so."""

from __future__ import annotations

import re
import warnings
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pretend_device import pretend_device
from small_models import ragged_pairs, tiny_model

from ioi_fast import GPT2, PromptPairs, ablate, activation_patch, attention, path_patch
from ioi_fast.engine.choose_ops import compiler_for_triton, why_not_triton


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
    monkeypatch.setattr("ioi_fast.engine.choose_ops.find_spec", lambda name: object())
    for found, reason in (
        (False, "torch sees no GPU: TRITON_INTERPRET=1"),
        (True, "the model is on the CPU: load it with device='cuda'"),
    ):
        monkeypatch.setattr("torch.cuda.is_available", lambda found=found: found)
        with refused(f"backend 'triton' can't run this: {reason}"):
            path_patch(model, pairs, backend="triton")
    monkeypatch.setattr("ioi_fast.engine.choose_ops.find_spec", lambda name: None)
    with refused("backend 'triton' can't run this: triton is not installed: pip install"):
        path_patch(model, pairs, backend="triton")
    with refused("backend 'triton' can't run this: precision 'fp64'"):
        path_patch(model, pairs, backend="triton", precision="fp64")


def test_a_gpu_that_is_too_old_is_named(monkeypatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr("ioi_fast.engine.choose_ops.find_spec", lambda name: object())
    by_index = {0: (8, 0), 1: (7, 5)}
    monkeypatch.setattr(
        "torch.cuda.get_device_capability", lambda device: by_index[torch.device(device).index]
    )
    monkeypatch.setattr("ioi_fast.engine.choose_ops.compiler_for_triton", lambda: "/usr/bin/gcc")
    reason = why_not_triton(torch.device("cuda:1"))
    assert "compute capability 7.5, the kernels need 8.0" in reason
    assert why_not_triton(torch.device("cuda:0")) is None


@pytest.fixture
def a_gpu(monkeypatch) -> torch.device:
    """One that the kernels are made for, with all that Triton needs beside it."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr("ioi_fast.engine.choose_ops.find_spec", lambda name: object())
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr("ioi_fast.engine.choose_ops.compiler_for_triton", lambda: "/usr/bin/gcc")
    return torch.device("cuda:0")


def test_bf16_on_a_gpu_names_the_torch_that_it_needs(model, pairs, a_gpu, monkeypatch) -> None:
    """Before anything runs; other precisions and the interpreter do not need it."""
    monkeypatch.setattr("torch.ops.aten.mm", SimpleNamespace(dtype=None))
    assert why_not_triton(a_gpu, "bf16") is None
    monkeypatch.setattr("torch.ops.aten.mm", SimpleNamespace())  # as before torch 2.8
    assert "precision 'bf16' on a GPU needs torch 2.8, this is" in why_not_triton(a_gpu, "bf16")
    assert why_not_triton(a_gpu, "tf32") is why_not_triton(a_gpu) is None
    with pretend_device(), refused("can't run this: precision 'bf16' on a GPU needs torch 2.8"):
        path_patch(model.to(device=a_gpu), pairs, precision="bf16", backend="triton")


def executable(folder: Path, name: str) -> str:
    path = folder / name
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


def test_a_gpu_without_a_c_compiler_says_what_triton_needs(a_gpu, tmp_path, monkeypatch) -> None:
    """As Triton looks for one: CC whatever else there is, then gcc, then clang."""
    monkeypatch.setattr("ioi_fast.engine.choose_ops.compiler_for_triton", compiler_for_triton)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert compiler_for_triton() is None
    reason = "finds no C compiler .*: install gcc or clang, or name one in .* CC"
    assert re.search(reason, why_not_triton(a_gpu))
    for name in ("clang", "gcc"):
        there = executable(tmp_path, name)
        assert compiler_for_triton() == there and why_not_triton(a_gpu) is None
    named = executable(tmp_path, "other")
    for value, found in ((named, named), ("other", named), ("nowhere", None), ("", None)):
        monkeypatch.setenv("CC", value)
        assert compiler_for_triton() == found
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr("ioi_fast.engine.choose_ops._why_not_interpreted", lambda: None)
    assert why_not_triton(torch.device("cpu")) is None, "the interpreter needs none"


@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
def test_an_interpreter_that_fails_with_this_numpy_is_named(a_gpu, monkeypatch) -> None:
    cpu = torch.device("cpu")
    for triton, numpy, runs in (
        ("3.6.0", "2.3.5", True),
        ("3.6.0", "2.4.0", False),
        ("3.5.1", "2.10.1", False),
        ("3.7.0", "2.5.5", True),
    ):
        monkeypatch.setattr("triton.__version__", triton)
        monkeypatch.setattr("numpy.__version__", numpy)
        monkeypatch.delenv("TRITON_INTERPRET", raising=False)
        assert why_not_triton(a_gpu) is None, "a GPU does not need it"
        monkeypatch.setenv("TRITON_INTERPRET", "1")
        reason = why_not_triton(cpu)
        assert (reason is None) == runs
        if not runs:
            assert f"triton {triton} can't run with numpy {numpy}: it needs triton 3.7" in reason
            assert "numpy older than 2.4" in reason


def test_a_model_on_a_gpu_falls_back_where_triton_is_missing(model, pairs, monkeypatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr("ioi_fast.engine.choose_ops.find_spec", lambda name: None)
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
