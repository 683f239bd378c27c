"""`ioi-fast bench --backend triton`: what is refused before anything runs, and a dry run's rows."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from ioi_fast.benchmarks.gpu import arguments, ceilings, parts, throughput
from ioi_fast.benchmarks.gpu.clock import kind_of
from ioi_fast.benchmarks.gpu.jobs import part as job_runs
from ioi_fast.benchmarks.gpu.jobs.job import job
from ioi_fast.benchmarks.gpu.jobs.truths import path_of, truth_of
from ioi_fast.benchmarks.gpu.setting import JOBS, Setting
from ioi_fast.cli import main

WITHOUT_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="what is refused without a GPU")


@WITHOUT_GPU
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--backend", "triton"], "no GPU to measure: torch sees none; --dry needs none"),
        (["--dry"], "--dry: of --backend triton alone"),
        (["--budget", "3", "--jobs", "J1"], "--budget, --jobs: of --backend triton alone"),
        (["--backend", "triton", "--dry", "--readme"], "--readme: of the CPU's benchmarks alone"),
        (["--backend", "triton", "--dry", "-k", "J1"], "-k: of the CPU's benchmarks alone"),
        (["--backend", "triton", "--parts", "jobs,all"], "parts are device, tests, kernels"),
        (["--backend", "triton", "--jobs", ""], "jobs are J1, J1 at N=100, J2"),
        (["--backend", "triton", "--precisions", "fp64"], "precisions are fp32, tf32, bf16"),
        (["--backend", "triton", "--budget", "0"], "a number of seconds above 0, got '0'"),
        (["--backend", "triton", "--device", "cpu"], "a GPU, such as cuda or cuda:1, got 'cpu'"),
        (["--backend", "triton", "--device", "it"], "a GPU, such as cuda or cuda:1, got 'it'"),
        (["--backend", "triton", "--out", ""], "expected a name, got ''"),
        (["--backend", "triton", "--dry", "--tune", "--parts", "jobs"], "--tune is of the part"),
        (["--backend", "triton", "--budget", "nan"], "a number of seconds above 0, got 'nan'"),
    ],
)
def test_what_it_can_not_do_is_said(given: list[str], message: str, capsys) -> None:
    try:
        assert main(["bench", *given]) == 2
    except SystemExit as ended:
        assert ended.code == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_device_that_is_not_there(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    arguments.check_gpu("cuda:0")
    with pytest.raises(RuntimeError, match="'cuda:1' can't be measured: torch sees 1 GPU"):
        arguments.check_gpu("cuda:1")


def test_a_setting_crosses_to_another_process() -> None:
    setting = Setting(Path("somewhere"), True, "cuda:1", ("J1",), ("bf16",), True)
    assert Setting.of_json(setting.to_json()) == setting
    assert setting.device == torch.device("cpu") and setting.no_kernels is not None
    assert Setting(Path("out"), gpu="cuda:1").device == torch.device("cuda:1")


@pytest.mark.parametrize("name", JOBS)
def test_samples_of_jobs(name: str, tmp_path: Path, monkeypatch) -> None:
    """As many values as are checked, and their truth is made once."""
    monkeypatch.setenv("IOI_FAST_CACHE", str(tmp_path))
    setting = Setting(tmp_path, dry=True)
    one = job(name, dry=True)
    truth = truth_of(setting, name)
    assert truth.shape[0] == len(one.sample) and truth.isfinite().all()
    changed = path_of(setting, name).stat().st_mtime_ns
    assert torch.equal(truth_of(setting, name), truth)
    assert path_of(setting, name).stat().st_mtime_ns == changed
    path_of(setting, name).write_bytes(b"cut off")
    assert torch.equal(truth_of(setting, name), truth), "what is broken is made again"


def test_what_is_checked_of_whole_jobs() -> None:
    """Fifty sets and fifty pairs, drawn with seed 0."""
    sets, pairs = job("J4"), job("J5")
    assert (len(sets.sample), sets.variants) == (50, 2000)
    assert (len(pairs.sample), pairs.variants) == (50, 28512)
    assert all(a < c for _, a, _, c, _ in pairs.sample)
    values = torch.arange(2000.0)[:, None].expand(2000, 16)
    drawn = sets.chosen(values)[:, 0].long()
    assert [sets.asked["variants"][index] for index in drawn] == list(sets.sample)
    senders = job("J1").chosen(torch.arange(144.0)[:, None])[:, 0].long()
    assert [f"{n // 12}.{n % 12}" for n in senders.tolist()] == list(job("J1").sample)


def test_a_missed_promise_is_a_row_that_says_so() -> None:
    assert "missed" not in job_runs.promised(1e-5, "fp32")
    assert "error 3.9e-03, promised 2.5e-03" in job_runs.promised(3.9e-3, "tf32")["missed"]
    assert "missed" in job_runs.promised(float("nan"), "bf16")


def test_lines_of_rows() -> None:
    row = {
        "unit": "J1 fp32",
        "error": 1e-5,
        "seconds": [0.01],
        "flops_a_second": 2e13,
        "bytes_a_second": 1e12,
        "of_floor": 0.5,
        "launches": {"kernels": 1200, "copies HtoD": 3, "copies DtoH": 2, "busy_seconds": 0.004},
        "peak_bytes": 2**24,
        "plan_bytes": 2**23,
    }
    assert job_runs.line(row) == (
        "error 1e-05, 10.00 ms, 20.0 TFLOP/s, 1000 GB/s, 50% of the floor, "
        "1,200 launches, 5 copies, busy 4.0 ms, 16 MiB (plan 8)"
    )
    row = {"job": "J5", "precision": "bf16", "seconds": 2.0, "busy_seconds": 1.0, "kernels": []}
    assert throughput.line(row) == "J5 in bf16, busy 50% of 2000.0 ms: "
    copy = {"unit": "pinned copies", "bytes_a_second": 5e10, "bytes_a_second_back": 4e10}
    assert ceilings.line(copy) == "50.0 GB/s, back 40"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Memcpy HtoD (Pageable -> Device)", "copies HtoD"),
        ("Memcpy DtoD (Device -> Device)", "copies DtoD"),
        ("Memset (Device)", "fills"),
        ("attention_delta_queries", "kernels"),
    ],
)
def test_kinds_of_what_a_device_did(name: str, kind: str) -> None:
    assert kind_of(name) == kind


@pytest.mark.parametrize("before", [None, "0", "1"])
def test_graphs_are_as_they_were_after_a_measurement(before: str | None, monkeypatch) -> None:
    monkeypatch.delenv(job_runs.GRAPHS, raising=False)
    if before is not None:
        monkeypatch.setenv(job_runs.GRAPHS, before)
    for on in (True, False):
        with job_runs.graphs(on):
            assert os.environ.get(job_runs.GRAPHS) == ("1" if on else None)
        assert os.environ.get(job_runs.GRAPHS) == before


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_dry_run_writes_what_a_run_on_a_gpu_writes(tmp_path: Path) -> None:
    """Every part, every job, every precision, in the interpreter: no row is missing, none late."""
    out = tmp_path / "gpu"
    given = ["--backend", "triton", "--dry", "--tune", "--out", str(out)]
    assert main(["bench", *given]) == 0
    for name in parts.NAMES:
        found = json.loads((out / f"{name}.json").read_text())
        assert found["dry"] and found["running"] is None
        assert [row["unit"] for row in found["rows"]] == found["units"] != []
        assert not [row for row in found["rows"] if "failed" in row or "missed" in row]
    jobs = json.loads((out / "jobs.json").read_text())
    assert jobs["machine"]["device"] == "Triton's interpreter"
    ran = {(row["job"], row["precision"]) for row in jobs["rows"] if "error" in row}
    assert ran >= {(f"J{n}", p) for n in range(1, 6) for p in ("fp32", "tf32", "bf16")}
    assert all(row["seconds"] == [] for row in jobs["rows"] if "error" in row), "no times"
