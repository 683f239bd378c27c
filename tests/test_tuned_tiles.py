"""Launch tables: used on the device and version that they name, refused where they are broken."""

from __future__ import annotations

import copy
import json
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import pytest
import torch

from ioi_fast.kernels import triton_tiles, tuned_tiles
from ioi_fast.kernels.triton_tiles import MLP_IN, MLP_IN_FEW, covering
from ioi_fast.kernels.tuned_tiles import FOLDER, KEYS, file_name, key_of, read, table_for, tile_of

NAME, VERSION = "Some GPU 80GB", "3.6.0"
PRODUCT = {"variants": 32, "cells": 16, "depth": 768, "columns": 3072}
ATTENTION = {"one_query": 0, "variants": 16, "keys": 16, "width": 64}
NEEDS_TRITON = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")


def row(kernel: str, precision: str | None, key: dict, tile: triton_tiles.Launch) -> dict:
    times = {"milliseconds": 1.0, "before": 2.0}
    return {
        "kernel": kernel,
        "precision": precision,
        "key": key,
        "tile": tile_of(tile),
        **times,
    }


def written(folder: Path, *rows: dict, name: str = NAME, version: str = VERSION, **more) -> Path:
    content = {"device": name, "triton": version, "rows": list(rows), **more}
    path = folder / file_name(name, version)
    path.write_text(json.dumps(content))
    return path


def good() -> dict:
    return row("mlp_in_delta", "ieee", PRODUCT, MLP_IN_FEW[0])


def test_a_row_is_found_by_its_key(tmp_path: Path) -> None:
    written(tmp_path, good(), row("layernorm_delta", None, {"columns": 768}, triton_tiles.ROWS[3]))
    table = table_for(NAME, VERSION, tmp_path)
    assert table == {
        ("mlp_in_delta", "ieee", (32, 16, 768, 3072)): MLP_IN_FEW[0],
        ("layernorm_delta", None, (768,)): triton_tiles.ROWS[3],
    }


def test_it_is_used_on_its_own_device_and_version_only(tmp_path: Path) -> None:
    path = written(tmp_path, good())
    assert table_for(NAME, "3.6.1+git5", tmp_path)
    assert not table_for("Some GPU 40GB", VERSION, tmp_path)
    assert not table_for(NAME, "3.7.0", tmp_path)
    # Neither under another's name.
    path.rename(tmp_path / file_name("Some GPU 40GB", VERSION))
    assert not table_for("Some GPU 40GB", VERSION, tmp_path)
    assert not table_for("Some-GPU 40GB", VERSION, tmp_path)


def test_a_dry_table_is_never_used(tmp_path: Path) -> None:
    written(tmp_path, good(), dry=True)
    assert not table_for(NAME, VERSION, tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"rows": []}', '{"device": 1, "triton": "3"}'])
def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / file_name(NAME, VERSION)
    path.write_text(text)
    with pytest.raises(ValueError, match="is no launch table") as said:
        table_for(NAME, VERSION, tmp_path)
    assert str(path) in str(said.value)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (["kernel"], "gelu_delta"),
        (["precision"], "fp16"),
        (["precision"], None),
        (["key", "variants"], 33),
        (["key", "depth"], "768"),
        (["key"], {"variants": 32}),
        (["key", "queries"], 1),
        (["tile", "warps"], 2),
        (["tile", "stages"], 5),
        (["tile", "sizes", "DEPTH"], 64),
        (["tile"], None),
        ([], None),
    ],
)
def test_a_row_that_is_no_compiled_tile_is_named(
    tmp_path: Path, place: list[str], value: object
) -> None:
    holder = {"row": copy.deepcopy(good())}
    *path, last = ["row", *place]
    inner = holder
    for name in path:
        inner = inner[name]
    inner[last] = value
    where = written(tmp_path, good(), holder["row"])
    with pytest.raises(ValueError, match="row 1, is no launch") as said:
        table_for(NAME, VERSION, tmp_path)
    assert str(where) in str(said.value)


def test_a_tile_that_is_too_small_for_its_key_is_refused(tmp_path: Path) -> None:
    """It would leave keys out, and say nothing."""
    short = triton_tiles.attention_of(16, 64, one_query=False)
    table = {"kernel": "attention_delta", "precision": "tf32", "tile": tile_of(short)}
    written(tmp_path, {**table, "key": ATTENTION})
    assert len(table_for(NAME, VERSION, tmp_path)) == 1
    for more in ({"keys": 32}, {"width": 128}, {"one_query": 1}):
        written(tmp_path, {**table, "key": {**ATTENTION, **more}})
        with pytest.raises(ValueError, match="no tile of triton_tiles"):
            table_for(NAME, VERSION, tmp_path)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.name)
def test_every_table_that_is_here_is_valid(path: Path) -> None:
    content = read(path)
    assert path.name == file_name(content["device"], content["triton"])
    assert not content.get("dry") and content["rows"]
    table = table_for(content["device"], content["triton"], FOLDER)
    assert len(table) == len(content["rows"])
    assert all(one["milliseconds"] < one["before"] for one in content["rows"])


# Keys


@pytest.mark.parametrize(("size", "up"), [(0, 1), (1, 1), (2, 2), (3, 4), (16, 16), (17, 32)])
def test_what_changes_from_launch_to_launch_is_rounded_up(size: int, up: int) -> None:
    assert key_of("mlp_in_delta", (size, size, 767, 5)) == (up, up, 767, 5)
    assert key_of("attention_delta", (True, size, size, 80)) == (1, up, up, 80)
    assert key_of("head_write", (size, 80, 767)) == (up, 80, 767)


def test_todays_choice_is_among_what_covers_its_key() -> None:
    """Whatever the sizes that fall into a key."""
    for P, N in product((1, 2, 3, 16, 33, 144), (1, 5, 16, 700)):
        key = dict(zip(KEYS["mlp_in_delta"], key_of("mlp_in_delta", (P, N, 5, 7)), strict=True))
        assert triton_tiles.product_launch(P, N) in covering("mlp_in_delta", key)
    for T, S, K in product((1, 2, 40), (1, 16, 17, 33, 64), (5, 16, 64, 65, 128)):
        sizes = key_of("attention_delta", (T == 1, 3, S, K))
        tiles = covering("attention_delta", dict(zip(KEYS["attention_delta"], sizes, strict=True)))
        assert set(triton_tiles.LONG) <= set(tiles)
        # Of prompts of 33 to 64 tokens, as of all between two powers of two, each has every tile.
        if S in (1, 16, 64):
            assert triton_tiles.attention_launch(T, S, K) in tiles
    for D in (5, 64, 65, 768, 2048):
        assert triton_tiles.row_launch(D) in covering("layernorm_delta", {"columns": D})
    for K in (5, 64, 128):
        assert triton_tiles.write_launch(K) in covering("head_write", {"depth": K})
    with pytest.raises(ValueError, match="gelu_delta"):
        covering("gelu_delta", {})


def test_heads_take_the_narrowest_tile_that_holds_them() -> None:
    for S in (1, 32, 500):
        for K in range(1, 65):
            width = triton_tiles.attention_launch(2, S, K).constants["WIDTH"]
            assert width == (16 if K <= 16 else 64), (S, K)


@NEEDS_TRITON
def test_every_tile_that_covers_a_key_is_compiled_ahead() -> None:
    from ioi_fast.benchmarks.kernel_resources import cases

    compiled: dict[str, set] = {}
    for case in cases():
        name = case.kernel.__name__.removesuffix("_kernel")
        compiled.setdefault("attention_delta" if "attention" in name else name, set()).add(
            case.launch
        )
    keys = {
        "layernorm_delta": {"columns": 1},
        "readout_delta": {"columns": 1},
        "mlp_in_delta": {},
        "head_write": {"depth": 1},
    }
    for operation, key in keys.items():
        assert set(covering(operation, key)) == compiled[operation]
    attention = [
        covering("attention_delta", {"one_query": one, "keys": 1, "width": 1}) for one in (0, 1)
    ]
    assert {tile for tiles in attention for tile in tiles} == compiled["attention_delta"]


# What the engine launches


@pytest.fixture
def on_a_gpu(monkeypatch, tmp_path: Path):
    """A device that is called NAME, with this folder's tables."""
    import triton

    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: NAME)
    monkeypatch.setattr(tuned_tiles, "FOLDER", tmp_path)
    tuned_tiles.table_of.cache_clear()
    yield lambda *rows, **more: written(tmp_path, *rows, version=triton.__version__, **more)
    tuned_tiles.table_of.cache_clear()


@NEEDS_TRITON
def test_tables_are_read_on_gpus_outside_of_the_interpreter(on_a_gpu, monkeypatch) -> None:
    on_a_gpu(good())
    asked = ("mlp_in_delta", "ieee", (31, 9, 768, 3072))
    gpu, today = torch.device("cuda", 7), MLP_IN[0]
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert tuned_tiles.tuned(*asked, gpu, today) is today
    tuned_tiles.table_of.cache_clear()
    monkeypatch.delenv("TRITON_INTERPRET")
    assert tuned_tiles.tuned(*asked, torch.device("cpu"), today) is today
    assert tuned_tiles.tuned(*asked, gpu, today) is MLP_IN_FEW[0]
    for other in (
        ("mlp_in_delta", "tf32", (31, 9, 768, 3072)),
        ("mlp_in_delta", "ieee", (16, 9, 768, 3072)),
        ("mlp_in_delta", "ieee", (31, 9, 1024, 4096)),
        ("head_write", "ieee", (9, 768, 3072)),
    ):
        assert tuned_tiles.tuned(*other, gpu, today) is today


@NEEDS_TRITON
def test_a_device_without_a_table_asks_once(on_a_gpu, monkeypatch) -> None:
    asked: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: asked.append(device) or NAME)
    for _ in range(3):
        today = MLP_IN[0]
        sizes = (31, 9, 768, 3072)
        found = tuned_tiles.tuned("mlp_in_delta", "ieee", sizes, torch.device("cuda"), today)
        assert found is today
    assert len(asked) == 1


@NEEDS_TRITON
def test_every_launch_asks_for_products_fused_with_sums() -> None:
    from ioi_fast.kernels import triton_ops

    launched: list[dict] = []

    class Kernel:
        def __getitem__(self, grid: tuple[int, ...]):
            return lambda *given, **settings: launched.append({"grid": grid, **settings})

    chosen = triton_tiles.ROWS[0]
    for programs in (0, 3):
        triton_ops.launch_kernel(Kernel(), programs, chosen)
    (one,) = launched
    assert one["grid"] == (3,) and one["enable_fp_fusion"] is True
    assert one["num_warps"] == chosen.warps and one["num_stages"] == chosen.stages


@NEEDS_TRITON
def test_operations_launch_a_tables_tile_with_programs_of_its_own(monkeypatch) -> None:
    from ioi_fast.kernels import triton_ops

    launched: list[tuple] = []

    def launch(kernel, programs, chosen, *given, **more):
        launched.append((kernel.__name__, programs, chosen))

    zeros, P, N, H, K, D, F = torch.zeros, 32, 16, 2, 16, 64, 128
    tiles = {
        "layernorm_delta": triton_tiles.ROWS[1],
        "readout_delta": triton_tiles.ROWS[2],
        "mlp_in_delta": MLP_IN_FEW[1],
        "head_write": triton_tiles.HEAD_WRITE[128],
        "attention_delta": triton_tiles.LONG[0],
    }
    monkeypatch.setattr(triton_ops, "launch_kernel", launch)
    monkeypatch.setattr(tuned_tiles, "tuned", lambda operation, *more: tiles[operation])
    rows, gain, where = zeros(P, N, D), zeros(D), torch.zeros(P, dtype=torch.int64)
    triton_ops.layernorm_delta(zeros(N, D), rows, gain, 1e-5)
    triton_ops.readout_delta(zeros(N, D), rows, gain, 1e-5, zeros(N, D))
    triton_ops.mlp_in_delta(zeros(N, F), rows.flatten(0, 1), zeros(D, F))
    triton_ops.head_write(rows, where, zeros(N, H, K), where, zeros(H, K, D))
    base, delta = zeros(N, 5, H, K), zeros(P, N, 5, H, K)
    triton_ops.attention_delta(base, base, base, delta, delta, delta, 0.25)
    assert launched == [
        ("layernorm_delta_kernel", P * N, tiles["layernorm_delta"]),
        ("readout_delta_kernel", P * N, tiles["readout_delta"]),
        ("mlp_in_delta_kernel", (P // 4) * (N // 4) * (F // 64), tiles["mlp_in_delta"]),
        ("head_write_kernel", P * 1 * (D // 16), tiles["head_write"]),
        ("attention_delta_long", N * H * P, tiles["attention_delta"]),
    ]
