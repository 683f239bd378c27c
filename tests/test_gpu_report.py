"""What a run on a GPU found, as text, and as committed results: figures made up by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ioi_fast.benchmarks import results
from ioi_fast.benchmarks.gpu import keep, report
from ioi_fast.benchmarks.gpu.ceilings import device_of
from ioi_fast.benchmarks.gpu.machine import source_hash

MACHINE = {
    "device": "Made-Up 9000",
    "driver": "1.2",
    "torch": "2.11.0",
    "triton": "3.6.0",
    "host_cpu": "a CPU",
    "commit": "abc",
    "source": "",
}
RATES = {"fp32": 5e13, "tf32": 4e14, "bf16": 8e14}
FOUND = {
    "device": [
        {"unit": "machine", **MACHINE},
        {"unit": "copy", "bytes_a_second": 3e12, "seconds": [1.0]},
        {"unit": "launch", "host_seconds_a_launch": 4e-6},
        {"unit": "pinned copies", "bytes_a_second": 5e10, "bytes_a_second_back": 4e10},
        *({"unit": f"product {k} 8192³", "flops_a_second": r} for k, r in RATES.items()),
    ],
    "jobs": [
        {
            "unit": "J1 fp32",
            "job": "J1",
            "precision": "fp32",
            "error": 8e-6,
            "seconds": [0.009, 0.010, 0.011],
            "of_floor": 0.5,
            "host_seconds": 0.012,
            "peak_bytes": 2**24,
            "plan_bytes": 2**23,
            "launches": {"kernels": 1200, "busy_seconds": 0.004},
        },
        {
            "unit": "J1 fp32 bits",
            "job": "J1",
            "precision": "fp32",
            "repeats": 1000,
            "unlike": 0,
            "alone": 1e-8,
        },
        {
            "unit": "J1 bf16",
            "job": "J1",
            "precision": "bf16",
            "error": 4e-3,
            "seconds": [0.005],
        },
        {"unit": "J2 fp32", "failed": "RuntimeError: a kernel\nmore"},
        {
            "unit": "J1 fp32 graphs",
            "job": "J1",
            "precision": "fp32",
            "captured": 1,
            "seconds": [0.002],
            "plain_seconds": [0.010],
        },
        {"unit": "J4 tf32", "error": 4e-3, "missed": "error 4e-03", "job": "J4",
         "precision": "tf32", "seconds": []},
    ],
    "peers": [
        {"unit": "1", "job": "J1", "rung": "hooks", "precision": "fp32", "error": 2e-5,
         "seconds": [2.0], "sampled": 20, "of": 144},
        {"unit": "2", "job": "J1", "rung": "compiled", "precision": "fp32", "error": 5e-5,
         "seconds": [0.1]},
        {"unit": "3", "job": "J1", "rung": "cone", "precision": "bf16", "error": 1e-1,
         "seconds": [0.02]},
        {"unit": "4", "job": "J1", "rung": "cone", "precision": "tf32", "error": 1e-2,
         "seconds": [0.03]},
        {"unit": "5", "job": "J1", "rung": "ours", "precision": "fp32", "error": 1e-6,
         "seconds": [0.010]},
        {"unit": "6", "job": "J1", "rung": "batched", "precision": "fp32", "error": None,
         "seconds": []},
    ],
    "kernels": [
        {"unit": "k", "operation": "attention_delta", "job": "J1", "precision": "fp32",
         "error": 1e-7, "seconds": [1e-5], "share": 0.4, "compiled_seconds": [2e-5]},
        {"unit": "n", "operation": "layernorm_delta", "job": "J1", "precision": "fp32",
         "error": None, "seconds": [], "missed": "error nan"},
    ],
    "throughput": [
        {"unit": "profile", "job": "J1", "precision": "fp32", "seconds": 0.01,
         "busy_seconds": 0.004,
         "kernels": [{"name": "a_kernel", "launches": 12, "seconds": 0.003, "share": 0.75}]},
        {"unit": "N=1 fp32", "N": 1, "precision": "fp32", "seconds": [0.1], "peak_bytes": 2**20,
         "variants_a_second": 1440.0, "patched_prompts_a_second": 1440.0},
    ],
}  # fmt: skip


def test_the_peer_beside_ours_is_the_fastest_that_is_as_exact() -> None:
    assert report.fastest_peer(FOUND, "J1", "fp32")["rung"] == "compiled"
    assert report.fastest_peer(FOUND, "J1", "bf16")["precision"] == "tf32", "0.01 is within 0.02"
    assert report.fastest_peer(FOUND, "J2", "fp32") is None
    lines = report.job_lines(FOUND)
    assert "compiled in fp32, 100 ms: **10×**" in lines[2]
    assert "| 10 ms | 2 ms | 50% |" in lines[2]
    assert "cone in tf32, 30 ms: **6.0×**" in lines[3]


def test_every_table_shows_its_rows() -> None:
    text = "\n".join(report.tables(FOUND))
    assert "fp32 8192³ 50 TFLOP/s" in text and "a copy 3000 GB/s" in text
    assert "| J1 | hooks | fp32 | 2e-05 | 2e+03 ms, from 20 of 144 |" in text
    assert "| J1 | batched | fp32 | NaN | – |" in text
    assert "| J1 | fp32 | 1,200 | 16, 8 | 12 ms | 0 of 1000 | 1e-08 | – | – |" in text
    assert "a launch 4.0 µs of the host" in text and "pinned copies 50 GB/s, back 40" in text
    assert "J1 in fp32, busy 4 of 10 ms:" in text and "| `a_kernel` | 12 | 75% |" in text
    assert "| layernorm_delta | J1 | fp32 | NaN | – | – | – | – |" in text
    assert "| attention_delta | J1 | fp32 | 1e-07 | 0.01 ms | 40% | 0.02 ms | – |" in text
    assert "| 1 | fp32 | 1,440 | 1,440 | 1 MiB |" in text
    problems = "\n".join(report.problems(FOUND))
    assert "jobs, J2 fp32: RuntimeError: a kernel" in problems and "more" not in problems
    assert "jobs, J4 tf32: missed: error 4e-03" in problems


def test_what_a_run_measured_is_a_device_for_predictions() -> None:
    device = device_of(FOUND["device"])
    assert device.rates == {"fp32": 50.0, "tf32": 400.0, "bf16": 800.0}
    assert device.bandwidth == 3.0 and device.name == "Made-Up 9000, measured"
    assert device_of(FOUND["device"][:5]) is None, "one product was not measured"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run's folder, and a place of its own for what is kept."""
    monkeypatch.setattr(keep, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(keep, "revision", lambda: "0123456789ab")
    write(tmp_path, "jobs", FOUND["jobs"])
    write(tmp_path, "peers", FOUND["peers"])
    return tmp_path


def write(folder: Path, part: str, rows: list, dry: bool = False, **machine: object) -> None:
    facts = {**MACHINE, "source": source_hash(), **machine}
    content = {"part": part, "dry": dry, "machine": facts, "units": [], "rows": rows}
    (folder / f"{part}.json").write_text(json.dumps(content))


def test_results_are_kept_by_device_and_part(folder: Path) -> None:
    path = keep.keep(folder)
    assert path == folder / "kept" / "made-up-9000.json"
    write(folder, "jobs", FOUND["jobs"][:1])
    (folder / "peers.json").unlink()
    keep.keep(folder)
    (one,) = keep.kept()
    assert one["machine"]["commit"] == "0123456789ab"
    assert len(one["parts"]["jobs"]["rows"]) == 1, "of the same sources, as the peers are"
    assert len(one["parts"]["peers"]["rows"]) == 6
    block = keep.readme_block([one])
    assert "10 ms in fp32, 10.0 times as fast as the fastest peer that is as exact" in block
    assert "one Made-Up 9000, driver 1.2" in block and "commit 0123456789ab" in block
    assert "| J1 | hooks |" in keep.docs_block([one])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dry": True}, "holds a dry run"),
        ({"source": "other", "alone": True}, "other sources than stand here"),
        ({"device": "Another"}, "of another device or other versions"),
    ],
)
def test_what_was_not_measured_here_is_not_kept(folder: Path, change: dict, message: str) -> None:
    if change.pop("alone", False):
        (folder / "peers.json").unlink()
    write(folder, "jobs", [], **change)
    with pytest.raises(ValueError, match=message):
        keep.keep(folder)
    assert not keep.kept()


def test_results_are_kept_of_a_commit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for commit in (None, "0123456789ab+changes"):
        monkeypatch.setattr(keep, "revision", lambda commit=commit: commit)
        with pytest.raises(ValueError, match="results are kept of a commit"):
            keep.keep(folder)
    with pytest.raises(ValueError, match="no part that a device has run"):
        keep.keep(folder / "nothing")


def test_pages_have_what_is_committed() -> None:
    """Made anew from the committed results they are what they are."""
    found = keep.kept()
    for page, block in (
        (results.README, keep.readme_block(found)),
        (keep.DOCS, keep.docs_block(found)),
    ):
        text = page.read_text()
        assert keep.into(text, block) == text
    assert all("+changes" not in one["machine"]["commit"] for one in found)
    assert "No GPU has run it yet" in keep.readme_block([])
    with pytest.raises(ValueError, match="once each"):
        keep.into("no marks", "block")


def test_what_can_not_be_kept_leaves_all_as_it_was(folder: Path, capsys) -> None:
    (folder / "jobs.json").write_text("{rubbish")
    assert keep.main([str(folder)]) == 2
    assert "jobs.json can't be read" in capsys.readouterr().err and not keep.kept()
    assert report.rows_of(folder, "jobs") == [], "and to other parts it is as if it were not there"


def test_parts_of_other_sources_do_not_stay(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep.keep(folder)
    monkeypatch.setattr(keep, "source_hash", lambda: "newer")
    for part in ("jobs", "peers"):
        (folder / f"{part}.json").unlink()
    write(folder, "throughput", FOUND["throughput"], source="newer")
    keep.keep(folder)
    (one,) = keep.kept()
    assert list(one["parts"]) == ["throughput"]


def test_peers_that_are_hooks_alone_are_no_measure() -> None:
    rows = [{**FOUND["peers"][0], "job": "J2"}]
    assert report.fastest_peer({"peers": rows}, "J2", "fp32") is None
