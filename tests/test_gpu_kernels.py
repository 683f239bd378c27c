"""Kernels timed alone: their shapes and costs, which tile is chosen, and a dry run to its end."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

if find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)

from compare import normal
from kernel_calls import call_of

from ioi_fast.benchmarks.gpu.clock import Clock
from ioi_fast.benchmarks.gpu.kernels import part as kernels
from ioi_fast.benchmarks.gpu.kernels import peers as kernel_peers
from ioi_fast.benchmarks.gpu.kernels.costs import Cost, cost
from ioi_fast.benchmarks.gpu.kernels.shapes import Call, Shape, heaviest, recording
from ioi_fast.benchmarks.gpu.part_files import PartFile
from ioi_fast.benchmarks.gpu.setting import Setting
from ioi_fast.kernels import reference, triton_ops, tuned_tiles

CPU = torch.device("cpu")


def attention(P: int = 3, N: int = 2, T: int = 4, S: int = 5, C: int = 2, H: int = 2, K: int = 8):
    """A call of attention whose changed positions ascend."""
    zeros = torch.zeros
    return {
        "q_NTHK": zeros(N, T, 3, H, K)[:, :, 0],
        "k_NSHK": zeros(N, S, H, K),
        "v_NSHK": zeros(N, S, H, K),
        "delta_q": zeros(P, N, T, H, K),
        "delta_k": zeros(P, N, C, H, K),
        "delta_v": zeros(P, N, C, H, K),
        "scale": 0.25,
        "at_NT": torch.arange(S)[-T:].expand(N, T),
        "changed_NC": torch.tensor([[1, 3]] * N)[:, :C],
        "table": None,
        "sources": None,
    }


# Shapes


def test_calls_are_counted_by_shape_and_operations_put_back(monkeypatch) -> None:
    monkeypatch.setattr(triton_ops, "launch_kernel", lambda *given, **more: None)
    before = triton_ops.mlp_in_delta
    pre, weight = torch.zeros(4, 6), torch.zeros(5, 6)
    with pytest.raises(RuntimeError), recording() as seen:
        for R in (8, 8, 4):
            triton_ops.mlp_in_delta(pre, torch.zeros(R, 5), weight, torch.arange(4), "tf32")
        triton_ops.mlp_in_delta(pre, torch.zeros(8, 5), weight, precision="ieee")
        triton_ops.mlp_in_delta(pre, torch.zeros(8, 7), weight, weight[0])  # no whole numbers
        raise RuntimeError
    assert triton_ops.mlp_in_delta is before
    assert sorted(seen.values()) == [1, 1, 1, 2]
    (often,) = (call for call, times in seen.items() if times == 2)
    assert often.described() == {
        "pre_RF": "float32 4×6",
        "rows_RD": "float32 8×5",
        "weight_DF": "float32 5×6",
        "index_R": "int64 4",
    }
    assert heaviest(seen, "mlp_in_delta", lambda call: call["rows_RD"].sizes[0]) is often
    assert heaviest(seen, "head_write", lambda call: 1) is None


def test_inputs_have_the_shapes_strides_and_whole_numbers_that_were_recorded() -> None:
    given = attention()
    given["q_NTHK"] = given["q_NTHK"][:1].expand(2, 4, 2, 8)
    drawn = call_of("attention_delta", **given).inputs(CPU)
    for name, one in given.items():
        if isinstance(one, torch.Tensor) and one.is_floating_point():
            assert drawn[name].stride() == one.stride() and drawn[name].shape == one.shape
            assert drawn[name].std() > 0.05, "never zeros"
        elif isinstance(one, torch.Tensor):
            assert torch.equal(drawn[name], one)
        else:
            assert drawn[name] == one
    assert Shape.of(given["q_NTHK"]).bytes == 4 * 4 * 2 * 8  # all prompts share their rows


# Costs


def test_costs_by_hand() -> None:
    N, P, D, F = 4, 3, 6, 10
    x, rows, gain = torch.zeros(N, D), torch.zeros(P, N, D), torch.zeros(D)
    given = {"x_RD": x, "delta_RD": rows, "gain_D": gain, "epsilon": 1e-5}
    assert cost(call_of("layernorm_delta", **given)) == Cost(4 * (N * D + 2 * P * N * D + D))
    found = cost(call_of("readout_delta", **given, direction_RD=x))
    assert found == Cost(4 * (2 * N * D + P * N * D + D + P * N))
    given = {"pre_RF": torch.zeros(N, F), "rows_RD": rows.flatten(0, 1)}
    given["weight_DF"] = torch.zeros(D, F)
    own = 4 * (P * N * D + D * F + P * N * F)
    assert cost(call_of("mlp_in_delta", **given)) == Cost(own + 4 * N * F, 2 * P * N * D * F)
    index = torch.tensor([0, 2, 2, 0, 2, 2, 0, 0, 0, 2, 2, 2])  # two base rows
    found = cost(call_of("mlp_in_delta", **given, index_R=index))
    assert found == Cost(own + 4 * 2 * F + 8 * 12, 2 * P * N * D * F)


def test_the_cost_of_writes_by_hand() -> None:
    """Four writes of two heads to three variants of five."""
    C, H, K, D = 4, 3, 2, 6
    call = call_of(
        "head_write",
        delta_PCD=torch.zeros(5, C, D),
        rows=torch.tensor([0, 3, 1, 3]),
        delta_z_CHK=torch.zeros(C, H, K),
        heads=torch.tensor([2, 0, 0, 2]),
        w_o_HKD=torch.zeros(H, K, D),
    )
    floats = 2 * 3 * C * D + 2 * C * K + 2 * K * D
    assert cost(call) == Cost(4 * floats + 2 * 4 * 8, 2 * 4 * C * K * D)


def test_the_cost_of_attention_leaves_out_what_a_table_does() -> None:
    P, N, T, S, C, H, K = 3, 2, 4, 5, 2, 2, 8
    given = attention(P, N, T, S, C, H, K)
    base, z, places = K * N * H * (T + 2 * S), P * N * T * H * K, 8 * (N * T + N * C)
    found = cost(call_of("attention_delta", **given))
    changes = P * N * H * K * (T + 2 * C)
    products = N * T * H * 2 * S * K + P * N * T * H * (4 * S * K + 4 * C * K)
    # `at` is one row for all prompts.
    assert found == Cost(4 * (base + changes + z) + places - 8 * T, products)
    table = torch.full((P, N, T, H), reference.FROZEN, dtype=torch.int8)
    table[0, 0, 1, 0], table[1, 0, :2, 0] = reference.LIVE, 0
    frozen = cost(call_of("attention_delta", **{**given, "table": table}))
    read = K * (1 + 2 * C + 2)  # one query's change with its keys and values, two rows of a source
    assert frozen.bytes == 4 * (base + read + z) + places - 8 * T + table.numel()
    assert frozen.flops == N * T * H * 2 * S * K + 4 * S * K + 4 * C * K


class OnAnH100(Setting):
    machine = {"device": "NVIDIA H100 80GB HBM3"}  # noqa: RUF012


class Elsewhere(Setting):
    machine = {"device": "another"}  # noqa: RUF012


def test_the_ceilings_are_measured_here_or_a_data_sheets(tmp_path: Path) -> None:
    setting = OnAnH100(tmp_path)
    found = kernels.ceilings(setting, "tf32")
    assert (found.bandwidth, found.rate, found.source) == (3.35e12, 494.7e12, "data sheet")
    device = PartFile(tmp_path / "device.json", {"machine": OnAnH100.machine})
    device.add("copy", {"bytes_a_second": 3e12})
    device.add("product tf32 J1", {"flops_a_second": 3e14})
    found = kernels.ceilings(setting, "tf32")
    assert (found.bandwidth, found.rate, found.source) == (3e12, 3e14, "measured")
    assert kernels.ceilings(setting, "bf16").source == "data sheet"
    assert kernels.ceilings(Elsewhere(tmp_path), "tf32") is None, "they are another device's"
    call = call_of("layernorm_delta", x_RD=torch.zeros(3, 5), delta_RD=torch.zeros(3, 5))
    call = Call(call.operation, (*call.arguments, ("gain_D", Shape.of(torch.zeros(5)))))
    row = kernels.of_the_floor(setting, call, "tf32", [1e-9, 2e-9, 9e-9])
    assert row["share"] == pytest.approx(200 / 3e12 / 2e-9)


# What others do


@pytest.mark.parametrize("C", [2, None])
def test_the_fused_form_is_the_same_operation(C: int | None) -> None:
    given = attention(C=2 if C else 5)
    names = [name for name, one in given.items() if name[:2] in ("q_", "k_", "v_", "de")]
    given |= {name: normal(*given[name].shape, seed=i) for i, name in enumerate(names)}
    given["changed_NC"] = torch.tensor([[1, 3], [2, -1]]) if C else None
    truth = kernel_peers.exact("attention_delta", given)
    fused = kernel_peers.fused(given, torch.float32)
    assert kernel_peers.error_of(fused(), truth) < 1e-5
    clock = Clock(CPU)
    assert kernel_peers.beside_sdpa(clock, given, truth, "bf16", 1)["sdpa_error"] < 5e-2


def test_what_torch_can_not_compile_is_said(monkeypatch) -> None:
    def refuses(*given: object) -> object:
        raise OSError("no compiler\nmore")

    monkeypatch.setattr(kernel_peers, "compiled", refuses)
    monkeypatch.setattr(kernel_peers, "_COMPILED", set())
    given = {"pre_RF": torch.zeros(2, 3), "delta_RF": torch.zeros(2, 3), "activation": "gelu_new"}
    asked = (Clock(CPU), "gelu_delta", given, torch.zeros(2, 3), "fp32", 1)
    found = kernel_peers.beside_compiled(*asked, no_time=True)
    assert found == {"compiled": "left out: no time"}
    found = kernel_peers.beside_compiled(*asked, no_time=False)
    assert found == {"compiled": "failed: OSError: no compiler"}


# The part, in Triton's interpreter


DRY = """
import json, sys, time
from pathlib import Path
import torch
from ioi_fast.benchmarks.gpu.kernels import peers as kernel_peers
from ioi_fast.benchmarks.gpu.kernels import part as kernels
from ioi_fast.benchmarks.gpu.kernels.costs import work
from ioi_fast.benchmarks.gpu.kernels.shapes import calls_of, heaviest
from ioi_fast.benchmarks.gpu.part_files import finite
from ioi_fast.benchmarks.gpu.setting import Setting
from ioi_fast.benchmarks.gpu.units import Allowance
from ioi_fast.kernels import tuned_tiles, triton_tiles
setting = Setting(Path(sys.argv[1]), dry=True, jobs=("J1", "J4"), tune=True)
rows = {}
for unit in kernels.units(setting):
    row = unit.run(Allowance(time.monotonic() + 1))
    rows[unit.name] = {**row, "line": kernels.line(row)}
apart = {}
for operation in ("mlp_in_delta", "attention_delta"):
    call = heaviest(calls_of(setting, "J1"), operation, work)
    given = call.inputs(setting.device)
    plain = kernels.kernels_of(operation, given, "ieee")[0]
    sizes = {"one_query": 0, "keys": 16, "width": 16}
    for tile in triton_tiles.covering(operation, sizes):
        out = kernels.kernels_of(operation, given, "ieee", tile)[0]
        apart[f"{operation} {tile}"] = kernel_peers.error_of(out, plain.double())
print(json.dumps(finite({"rows": rows, "apart": apart}), allow_nan=False))
"""


@pytest.fixture(scope="module")
def dry(tmp_path_factory) -> dict:
    """Rows of a dry run by unit, and how far results of other tiles are apart."""
    folder = tmp_path_factory.mktemp("dry")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-c", DRY, str(folder)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert run.returncode == 0, run.stderr[-4000:]
    return {**json.loads(run.stdout.splitlines()[-1]), "folder": folder}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_dry_run_has_every_row_and_no_time(dry: dict) -> None:
    rows = {name: row for name, row in dry["rows"].items() if "job" in row}
    assert {row["job"] for row in rows.values()} == {"J1", "J4"}
    assert {row["precision"] for row in rows.values()} == {"fp32", "tf32", "bf16"}
    assert "calls" in dry["rows"]["shapes J4"]["line"]
    for name, row in rows.items():
        assert row["launches"] > 0, name
        promised = kernels.PROMISED_OF_A_KERNEL[row["precision"]]
        assert "missed" not in row and 0 < row["error"] <= promised
        assert row["seconds"] == [] and "share" not in row and "dry" in row["line"]
        assert not row["compiled"].startswith("failed"), row["compiled"]
        assert row["bytes"] > 0 and row["ceilings"] is None
        if row["operation"] == "attention_delta":
            assert row["sdpa_seconds"] == [] and row["sdpa_error"] < 0.2
    assert rows["attention_delta J1 fp32"]["compiled"] == "eager"
    assert rows["attention_delta J1 fp32"]["compiled_error"] < 1e-5
    assert rows["attention_delta J4 fp32"]["shapes"]["table"].startswith("int8")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_dry_run_times_tiles_and_writes_a_table_that_nobody_loads(dry: dict) -> None:
    rows = [row for name, row in dry["rows"].items() if name.startswith("tune ")]
    assert len(rows) == len(tuned_tiles.KEYS) + 4  # two operations have two more precisions
    for row in rows:
        assert row["timed"] == 1 and row["kept"] == [] and "missed" not in row
        assert not row["installed"]
    (path,) = (dry["folder"] / "launches").iterdir()
    content = tuned_tiles.read(path)
    assert content["dry"] is True
    assert not tuned_tiles.table_for(content["device"], content["triton"], path.parent)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_other_tiles_give_the_same_but_for_the_order_of_sums(dry: dict) -> None:
    """Bits may differ: a tile adds in blocks of its own."""
    apart = dry["apart"].values()
    assert len(apart) == 7 + 6
    assert max(apart) <= 3e-6 and statistics.median(apart) < 1e-6


def test_a_line_says_what_is_timed() -> None:
    row = {
        "job": "J1",
        "operation": "attention_delta",
        "launches": 3,
        "seconds": [1e-5, 2e-5, 9e-5],
        "error": 2e-7,
        "share": 0.5,
        "compiled": "inductor",
        "compiled_seconds": [4e-5],
        "sdpa_seconds": [6e-5],
    }
    assert kernels.line(row) == (
        "0.0200 ms, error 2e-07, 50% of the ceiling, torch.compile 2.00 times that, "
        "SDPA 3.00 times that"
    )
    row = {**row, "compiled": "left out: no time", "compiled_seconds": None}
    assert "torch.compile left out: no time, SDPA" in kernels.line(row)
    assert kernels.line({**row, "launches": 0}) == "not launched there"
