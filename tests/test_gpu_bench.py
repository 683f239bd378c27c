"""The benchmark for GPUs: a wrong answer has no time, and a dry run goes through all of it."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

if find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)

from ioi_fast.benchmarks import gpu
from ioi_fast.benchmarks.roofline import Work
from ioi_fast.cli import main

WITHOUT_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="what is refused without a GPU")


def job(error: float) -> gpu.Job:
    return gpu.Job("J0", lambda: None, Work(10**9, 2 * 10**9, 10**6), lambda: error)


@pytest.fixture(scope="module")
def bench() -> gpu.Bench:
    return gpu.Bench.of(dry=True)


def test_a_wrong_answer_has_no_time(bench: gpu.Bench) -> None:
    with pytest.raises(AssertionError, match="J0 in fp32: error"):
        gpu.measured(bench, job(1e-3), "fp32")
    with pytest.raises(AssertionError, match="error nan"):
        gpu.measured(bench, job(float("nan")), "bf16")


def test_a_dry_run_says_no_time(bench: gpu.Bench) -> None:
    found = gpu.measured(bench, job(1e-6), "fp32")
    assert found["seconds"] == [] and "tflops" not in found
    assert set(found["predicted"]) == {"A100", "H100", "H200"}
    assert "dry: not timed, predicted ms" in gpu.line(found)
    timed = {**found, "seconds": [0.5, 1.0, 2.0], "tflops": 3.0, "gbytes_a_second": 4.0}
    assert "1000.00 ms, 3.0 TFLOP/s, 4 GB/s" in gpu.line(timed)


@WITHOUT_GPU
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backend", "triton"], "torch sees no GPU"),
        (["--dry"], "--dry is for --backend triton"),
        (["--backend", "triton", "--dry", "--readme"], "leave -k, --all, --threads, --readme"),
    ],
)
def test_what_it_can_not_do_is_said(arguments: list[str], message: str, capsys) -> None:
    assert main(["bench", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_dry_run_reaches_its_end(tmp_path: Path) -> None:
    """Every job in both precisions on the Triton kernels, in the interpreter."""
    out = tmp_path / "gpu.json"
    assert main(["bench", "--backend", "triton", "--dry", "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert found["machine"]["dry"] and found["machine"]["device"] == "Triton's interpreter"
    ran = {(one["job"], one["precision"]) for one in found["jobs"]}
    assert ran >= {(f"J{n}", p) for n in range(1, 6) for p in gpu.PRECISIONS} | {("J6", "fp32")}
    assert all(0 < one["error"] <= gpu.PROMISED[one["precision"]] for one in found["jobs"])
