"""What is written for a GPU, on a pretended one: every unit that takes times, to its end.

Its figures are of nothing; what is shown is that the rows come, with all that a line needs.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import pytest
import torch
from pretend_cuda import NAME, pretend_cuda
from pretend_device import DEVICE, pretend_device

from ioi_fast.benchmarks.gpu import ceilings, clock, throughput
from ioi_fast.benchmarks.gpu.jobs import part as job_runs
from ioi_fast.benchmarks.gpu.kernels import part as kernels
from ioi_fast.benchmarks.gpu.part_files import PartFile
from ioi_fast.benchmarks.gpu.peers import part as peers
from ioi_fast.benchmarks.gpu.peers import rows as peer_rows
from ioi_fast.benchmarks.gpu.peers.plain_gpt2 import Steps
from ioi_fast.benchmarks.gpu.setting import Setting
from ioi_fast.benchmarks.gpu.units import Allowance, Row, missed
from ioi_fast.kernels.triton_graph import rehearsed

pytestmark = pytest.mark.slow


class Pretending(Setting):
    """A dry run's model, on a device that says it is a GPU."""

    @property
    def device(self) -> torch.device:
        return DEVICE

    @cached_property
    def model(self):
        return self.host.to(device=DEVICE)


@pytest.fixture
def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("IOI_FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(clock, "CACHE_BYTES", 2**10)
    monkeypatch.setattr(ceilings, "COPY", 2**12)
    monkeypatch.setattr(ceilings, "PINNED", 2**12)
    monkeypatch.setattr(ceilings, "LAUNCHES", 3)
    monkeypatch.setattr(ceilings, "REPEATS", 2)
    for rounds in ("ROUNDS", "REPEATS"):
        monkeypatch.setattr(job_runs, rounds, 1)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    pretend_cuda(monkeypatch)
    with pretend_device():
        yield Pretending(tmp_path / "out", dry=True, jobs=("J1", "J4", "J5"), precisions=("fp32",))


def rows(module, setting: Setting, part: str) -> dict[str, Row]:
    """What the units of a part give, written as a run writes them; every row has its line."""
    begun = {"part": part, "dry": False, "machine": setting.machine}
    file = PartFile(setting.out / f"{part}.json", begun)
    for unit in module.units(setting):
        row = file.add(unit.name, unit.run(Allowance(time.monotonic() + 600)))
        assert module.line(row) and "dry" not in module.line(row), row
        assert not missed(row), row
    return {row["unit"]: row for row in file.rows}


def in_fp32_sums(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """What only a GPU does with bf16."""
    return left.float() @ right.float()


def test_every_part_that_takes_times(setting: Setting, monkeypatch) -> None:
    monkeypatch.setattr(ceilings, "in_fp32_sums", in_fp32_sums)
    compensated = ceilings._compensated(ceilings.bf16_parts, in_fp32_sums)
    monkeypatch.setitem(ceilings.PRODUCTS, "bf16x3", compensated)
    device = rows(ceilings, setting, "device")
    assert device["machine"]["device"] == NAME
    assert all(device[f"product {kind} 8192³"]["flops_a_second"] > 0 for kind in ceilings.PRODUCTS)
    assert device["launch"]["host_seconds_a_launch"] > 0

    jobs = rows(job_runs, setting, "jobs")
    assert set(jobs) == {
        f"{name} fp32{kind}" for name in setting.jobs for kind in ("", " graphs", " bits")
    }
    first = jobs["J1 fp32"]
    assert len(first["seconds"]) == 1 and first["host_seconds"] > 0 and 0 < first["error"] < 1e-4
    assert first["peak_bytes"] == 2**21 and first["plan_bytes"] > 0
    assert first["of_floor"] > 0 and first["launches"]["busy_seconds"] == 0
    graphs = jobs["J1 fp32 graphs"]
    assert graphs["captured"] == 1 and graphs["seconds"] and graphs["plain_seconds"]
    assert jobs["J5 fp32 graphs"]["captured"] == 0
    assert {"alone", "subset"} <= set(jobs["J4 fp32 bits"])

    monkeypatch.setattr(throughput, "DRY_PROMPTS", (1, 2))
    found = rows(throughput, setting, "throughput")
    assert found["N=2 fp32"]["patched_prompts_a_second"] > 0
    assert found["profile"]["job"] in setting.jobs and found["profile"]["kernels"] == []


def test_more_prompts_than_memory_holds(setting: Setting, monkeypatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB\nmore")

    monkeypatch.setattr(throughput, "path_patch", full)
    ended: list[str] = []
    row = throughput.swept(setting, "fp32", 4, ended, Allowance(0.0))
    assert row["ended"] == "CUDA out of memory. Tried to allocate 1 GiB"
    assert "the end of the memory" in throughput.line(row)
    assert "N=4" in throughput.swept(setting, "fp32", 16, ended, Allowance(0.0))["left_out"]


def test_other_bits_under_graphs_and_in_repeats_are_rows_that_say_so(setting, monkeypatch) -> None:
    count = iter(range(1000))
    run = job_runs.Job.run

    def other_each_time(self, *given: object, **more: object) -> torch.Tensor:
        return run(self, *given, **more) + next(count)

    monkeypatch.setattr(job_runs.Job, "run", other_each_time)
    soon = Allowance(time.monotonic() + 0.1)
    assert "other bits" in job_runs.bits(setting, "J4", "fp32", soon)["missed"]
    row = job_runs.under_graphs(setting, "J1", "fp32", soon)
    assert row["missed"] == "3 of 3 runs have other bits than without graphs"
    assert "seconds" not in row, "a wrong answer has no time"


def test_peers_on_a_device_of_their_own(setting: Setting, monkeypatch) -> None:
    """No tensor of theirs meets one of the host."""
    monkeypatch.setattr(peer_rows, "recorded", rehearsed)
    # What compiles does not know the pretence.
    monkeypatch.setattr(peers, "compiled_steps", lambda backend: Steps())
    found = rows(peers, setting, "peers")
    for name in setting.jobs:
        for rung in ("hooks, one pass", "batched", "cone", "compiled"):
            row = found[f"{name} {rung} fp32"]
            assert row["seconds"] and row["meets"], row
    assert found["J1 recorded fp32"]["seconds"] and found["J1 graphs fp32"]["seconds"]


def test_kernels_on_a_device_of_their_own(setting: Setting, monkeypatch) -> None:
    monkeypatch.setattr(kernels, "launched_on", lambda device: nullcontext())
    found = rows(kernels, replace(setting, jobs=("J1",)), "kernels")
    row = found["attention_delta J1 fp32"]
    assert row["seconds"] and row["sdpa_seconds"] and "compiled" in row, row
