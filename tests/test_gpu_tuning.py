"""Which tile a launch table gets: what is faster, twice, and slower nowhere."""

from __future__ import annotations

import json
from collections import Counter
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import pytest
import torch

if find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)

from kernel_calls import call_of

from ioi_fast.benchmarks.gpu.clock import Clock
from ioi_fast.benchmarks.gpu.kernels import alone as kernels
from ioi_fast.benchmarks.gpu.kernels import table_files, tuning
from ioi_fast.benchmarks.gpu.kernels.shapes import Call, Shape
from ioi_fast.benchmarks.gpu.kernels.tuning_rules import Choice, Rounds, chosen
from ioi_fast.benchmarks.gpu.setting import Setting
from ioi_fast.kernels import torch_ops, triton_tiles, tuned_tiles
from ioi_fast.kernels.triton_tiles import Launch

CPU = torch.device("cpu")


# Which tile is chosen


A, B, C = (Launch((("BLOCK", size),), 1) for size in (1, 2, 4))
SMALL, LARGE = (call_of("layernorm_delta", x_RD=torch.zeros(n, 2)) for n in (1, 9))


def noisy(seconds: dict, size: float = 0.0):
    """A clock that says these seconds, now more and now less."""
    turns = count()

    def time(call: Call, tile: Launch) -> float:
        turn = next(turns)
        late = 50.0 if size and turn % 7 == 3 else 1.0  # a run that something came between
        return seconds[call, tile] * late * (1 + size * (turn % 3 - 1))

    return time


def times(large: tuple[float, ...], small: tuple[float, ...]) -> dict:
    tiles = (A, B, C)
    return {
        **{(LARGE, tile): s for tile, s in zip(tiles, large, strict=True)},
        **{(SMALL, tile): s for tile, s in zip(tiles, small, strict=True)},
    }


def choose(seconds: dict, size: float = 0.0, **more) -> Choice:
    group = [(LARGE, A), (SMALL, B)]
    return chosen(group, (A, B, C), noisy(seconds, size), Rounds(), **more)


@pytest.mark.parametrize("size", [0.0, 0.02])
def test_the_fastest_tile_is_found(size: float) -> None:
    found = choose(times((1.0, 0.9, 0.5), (1.0, 1.0, 1.0)), size)
    assert found.tile == C
    assert found.seconds == pytest.approx(0.5, rel=0.03)
    assert found.before == pytest.approx(1.0, rel=0.03)


def test_a_tile_that_is_slower_somewhere_is_dropped() -> None:
    found = choose(times((1.0, 0.9, 0.5), (1.0, 1.0, 1.02)))
    assert found.tile is None and "slower at another shape: 1.020" in found.why
    # There it is what is launched already.
    assert choose(times((1.0, 0.5, 0.9), (1.0, 1.1, 1.0))).tile == B


def test_a_small_gain_is_dropped() -> None:
    found = choose(times((1.0, 1.0, 0.975), (1.0, 1.0, 1.0)))
    assert found.tile is None and "gains too little: 0.975" in found.why
    assert "fastest" in choose(times((1.0, 1.0, 1.1), (1.0, 1.0, 1.0))).why
    assert "fastest" in choose(times((1.0, 1.0, 1.0), (1.0, 1.0, 0.1))).why


def test_a_gain_has_to_be_seen_twice() -> None:
    """A tile that was fast while something else slowed the other down."""
    comparisons, real = iter([0.5, 1.0]), noisy(times((1.0, 1.0, 0.5), (1.0, 1.0, 1.0)))
    rounds, runs = Rounds(first=1, pairs=3), count()

    def time(call: Call, tile: Launch) -> float:
        turn = next(runs) - 3  # after the first run of each tile
        if turn < 0:
            return real(call, tile)
        if turn % 6 == 0:
            time.factor = next(comparisons)
        return time.factor if tile == C else 1.0

    found = chosen([(LARGE, A)], (A, B, C), time, rounds)
    assert found.tile is None and "gains too little: 1.000" in found.why


def test_without_time_for_every_shape_nothing_is_chosen() -> None:
    found = choose(times((1.0, 0.9, 0.5), (1.0, 1.0, 1.0)), over=lambda: True)
    assert found.tile is None and "no time" in found.why


def test_tiles_that_can_not_be_had_are_never_chosen() -> None:
    never = float("inf")
    found = choose(times((1.0, never, 0.5), (1.0, 1.0, never)))
    assert found.tile is None and "slower at another shape: inf" in found.why
    assert choose(times((never, never, never), (1.0, 1.0, 1.0))).tile is None


# Tables


def test_a_tile_that_errs_or_fails_takes_for_ever(monkeypatch) -> None:
    """Each is said once, however often it is asked for."""
    timer = tuning.TileTimer(Clock(CPU), "fp32")
    call = call_of("layernorm_delta", x_RD=torch.zeros(3, 5), delta_RD=torch.zeros(2, 3, 5))
    call = Call(call.operation, (*call.arguments, ("gain_D", Shape.of(torch.zeros(5)))))
    call = Call(call.operation, (*call.arguments, ("epsilon", 1e-5)))

    def made(operation, given, precision, tile):
        if tile == C:
            raise RuntimeError("out of shared memory")
        out = torch_ops.layernorm_delta(*(given[name] for name, _ in call.arguments))
        return out * (1.1 if tile == B else 1.0), lambda: None

    monkeypatch.setattr(kernels, "kernels_of", made)
    assert [timer(call, tile) for tile in (A, B, C, B, C)] == [1.0, *[float("inf")] * 4]
    assert len(timer.wrong) == 2
    assert "error 1.0e-01" in timer.wrong[0] and "out of shared memory" in timer.wrong[1]


def test_groups_are_the_engines_keys_and_launches() -> None:
    """Calls of one key stand together, those of most work first."""
    given = {"gain_D": torch.zeros(64), "epsilon": 1e-5}
    calls = Counter()
    for P, often in ((1, 1), (2, 50), (3, 1)):
        pre, rows, weight = torch.zeros(16, 128), torch.zeros(P * 16, 64), torch.zeros(64, 128)
        calls[call_of("mlp_in_delta", pre_RF=pre, rows_RD=rows, weight_DF=weight)] = often
    calls[call_of("layernorm_delta", x_RD=rows, delta_RD=rows, **given)] = 7
    timer = tuning.TileTimer(Clock(CPU), "fp32")
    first, second, third = tuning.groups_of([calls, calls], "mlp_in_delta", timer)
    assert first[0] == {"variants": 2, "cells": 16, "depth": 64, "columns": 128}
    assert [second[0]["variants"], third[0]["variants"]] == [4, 1]
    ((call, before),) = first[1]
    assert call["rows_RD"].sizes == (32, 64)
    assert before == triton_tiles.product_launch(2, 16)


@pytest.fixture
def device(monkeypatch, tmp_path: Path) -> Setting:
    """A GPU by name, and a folder in the place of the engine's."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    monkeypatch.setattr(tuned_tiles, "FOLDER", tmp_path / "engine" / "launches")
    (tmp_path / "engine").mkdir()
    return Setting(tmp_path / "out")


def one_row(variants: int, tile: Launch, seconds: float = 0.5) -> dict:
    key = {"variants": variants, "cells": 16, "depth": 64, "columns": 128}
    return tuning.row_of("mlp_in_delta", "bf16", key, Choice(tile, "faster", seconds, 1.0))


def test_a_table_is_where_the_engine_reads_it_and_keeps_what_it_had(device: Setting) -> None:
    few = triton_tiles.MLP_IN_FEW
    table = table_files.TableFile.of(device, anew=True)
    table.add(one_row(2, few[0]))
    assert table.places()["installed"]
    table_files.TableFile.of(device, anew=False).add(one_row(4, few[1]))
    table_files.TableFile.of(device, anew=True).add(one_row(2, few[2], 0.25))
    version = table.content["triton"]
    found = tuned_tiles.table_for("Some GPU", version, tuned_tiles.FOLDER)
    assert found == {
        ("mlp_in_delta", "bf16", (2, 16, 64, 128)): few[2],
        ("mlp_in_delta", "bf16", (4, 16, 64, 128)): few[1],
    }
    own = device.out / "launches" / tuned_tiles.file_name("Some GPU", version)
    assert json.loads(own.read_text())["rows"][1]["milliseconds"] == 250


def test_where_the_engines_folder_can_not_be_written_the_row_says_so(
    device: Setting, monkeypatch
) -> None:
    monkeypatch.setattr(table_files, "writable", lambda path: False)
    table = table_files.TableFile.of(device, anew=True)
    table.add(one_row(2, triton_tiles.MLP_IN_FEW[0]))
    places = table.places()
    assert not places["installed"] and places["put_it_into"] == str(tuned_tiles.FOLDER)
    assert Path(places["table"]).exists() and not tuned_tiles.FOLDER.exists()
