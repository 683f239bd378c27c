"""The parts of a run on a GPU can't take each other down: planted ones that fail in every way."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ioi_fast.benchmarks.gpu import parts, program, worker
from ioi_fast.benchmarks.gpu.budget import Budget
from ioi_fast.benchmarks.gpu.device_tests.processes import descendants
from ioi_fast.benchmarks.gpu.part_files import PartFile, rows_of
from ioi_fast.benchmarks.gpu.parts import Part
from ioi_fast.benchmarks.gpu.setting import Setting
from ioi_fast.benchmarks.gpu.units import Allowance

RUN_ONE = program.run_one
PLANTED = """
import os, sys, time
from ioi_fast.benchmarks.gpu.units import Unit

def row(**facts):
    return lambda allowance: facts

def raises(allowance):
    raise ValueError("planted")

def dies(allowance):
    os.abort()

def hangs(allowance):
    time.sleep(600)

def leaves(allowance):
    sys.exit(0)

KINDS = {"leaves": leaves, "whole": row(found=1), "raises": raises, "dies": dies, "hangs": hangs,
         "misses": row(found=3, error=0.5, missed="error 5e-01, promised 1e-04"),
         "nan": row(found=2, error=float("nan"))}

def units(setting):
    if "can't begin" in setting.jobs:
        raise RuntimeError("no unit can be made")
    return [Unit(name, KINDS[name], kernels=False) for name in setting.jobs]

def line(row):
    return "a finding" if row["found"] else ""
"""


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs parts made of planted units, one list of them a part; gives status and rows by part."""
    (tmp_path / "planted.py").write_text(PLANTED)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("IOI_FAST_CACHE", str(tmp_path / "cache"))

    def run(*kinds: list[str], seconds: float = 60.0) -> tuple[int, list[list[dict]]]:
        out = tmp_path / "out"
        parts = [Part(str(n), "planted", weight=1.0 + 2 * n) for n in range(len(kinds))]
        one = {part.name: units for part, units in zip(parts, kinds, strict=True)}

        def with_units(setting: Setting, part: Part, *limits: float) -> None:
            RUN_ONE(Setting(out, dry=True, jobs=tuple(one[part.name])), part, *limits)

        monkeypatch.setattr(program, "run_one", with_units)
        status = program.run(Setting(out, dry=True), parts, seconds)
        return status, [rows_of(out, part.name) for part in parts]

    return run


def test_all_is_well(planted, capfd) -> None:
    status, rows = planted(["whole", "nan"], ["whole"])
    assert status == 0 and [len(own) for own in rows] == [2, 1]
    assert rows[0][1]["error"] is None, "JSON has no NaN"
    assert "a finding" in capfd.readouterr().out


@pytest.mark.slow
def test_what_fails_leaves_the_others_whole(planted, capfd) -> None:
    status, rows = planted(
        ["raises", "whole"], ["misses", "whole"], ["whole", "dies", "misses"], ["can't begin"],
        ["whole"], ["leaves", "whole"],
    )  # fmt: skip
    assert status == 1
    raised, missed, died, never, last, left = rows
    assert raised[0]["failed"] == "ValueError: planted" and "planted" in raised[0]["trace"][-1]
    assert raised[1] == {"unit": "whole", "found": 1}
    assert missed[0]["missed"].startswith("error 5e-01") and missed[1]["found"] == 1
    assert [row["unit"] for row in died] == ["whole", "dies", "misses"]
    assert "the process ended with status -6" in died[1]["failed"] and "missed" in died[2]
    assert "RuntimeError: no unit can be made" in never[0]["failed"]
    assert last == [{"unit": "whole", "found": 1}]
    assert "ended with status 0" in left[0]["failed"] and left[1]["found"] == 1
    said = capfd.readouterr().out
    assert "FAILED: ValueError: planted" in said and "MISSED: error 5e-01" in said
    assert "- 2, dies: the process ended" in said


@pytest.mark.slow
def test_what_runs_out_of_time_leaves_the_others_whole(planted) -> None:
    begun = time.monotonic()
    status, rows = planted(["whole", "hangs", "raises"], ["whole"], seconds=24.0)
    assert status == 1 and time.monotonic() - begun < 60
    assert rows[0][0]["found"] == 1 and rows[1] == [{"unit": "whole", "found": 1}]
    assert "no time: it was ended" in rows[0][1]["left_out"]
    assert "no time: it did not begin" in rows[0][2]["left_out"]


@pytest.mark.slow
def test_a_new_run_does_not_show_the_rows_of_an_old_one(planted) -> None:
    planted(["whole", "misses"])
    _, (rows,) = planted(["whole"])
    assert [row["unit"] for row in rows] == ["whole"]


def test_a_file_is_whole_after_every_row(tmp_path: Path) -> None:
    file = PartFile(tmp_path / "part.json", {"part": "part", "dry": True})
    file.say(units=["a", "b"], running="a")
    assert PartFile(file.path).left == ["a", "b"]
    file.add("a", {"found": [1.0, float("inf")], "deep": {"x": float("nan")}})
    again = PartFile(file.path)
    assert again.left == ["b"] and again.content["running"] is None
    assert json.loads(file.path.read_text())["rows"] == [
        {"unit": "a", "found": [1.0, None], "deep": {"x": None}}
    ]


def test_a_short_time_takes_repeats_and_not_units() -> None:
    assert Allowance(time.monotonic() + 10).repeats(1.0, most=20) in (9, 10)
    assert Allowance(time.monotonic() + 10).repeats(0.0, most=20) == 20
    assert Allowance(time.monotonic() - 10).repeats(1.0, most=20) == 1


def test_what_a_part_leaves_the_others_have() -> None:
    budget = Budget.of(120.0)
    should, must = budget.share(1.0, [1.0, 2.0])
    assert should == pytest.approx(30.0, abs=1) and must == pytest.approx(70.0, abs=1)
    assert Budget.of(12.0).share(1.0, [1.0, 2.0])[1] == pytest.approx(7.5, abs=1)
    assert budget.share(2.0, []) == pytest.approx((120.0, 120.0), abs=1)
    assert Budget.of(0.0).share(1.0, [1.0]) == (0.0, 0.0)


def test_where_kernels_can_not_be_launched_the_rest_runs(tmp_path: Path) -> None:
    """As on a node without the C compiler that Triton needs."""

    class Without(Setting):
        no_kernels = "triton finds no C compiler"

    setting = Without(tmp_path, dry=True)
    own = {part.name: list(part.units(setting)) for part in parts.PARTS}
    needing = {unit.name: unit.kernels for unit in (*own["device"], *own["peers"])}
    ours = [name for name, kernels in needing.items() if kernels]
    assert ours == ["J1 ours fp32", "J1 graphs fp32", "J4 ours fp32"]
    for name in ("tests", "kernels", "jobs", "throughput"):
        assert own[name]
        for unit in own[name]:
            row = worker.row_of(unit, setting, Allowance(0.0))
            assert row == {"left_out": "triton finds no C compiler"}
    assert not program.wrong(row), "what a machine lacks is no fault"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"error": 1e-6}, False),
        ({"missed": "error"}, True),
        ({"failed": "RuntimeError"}, True),
        ({"left_out": "not installed"}, False),
        ({"left_out": "no time", "no_time": True}, True),
        ({"rung": "cone", "missed": "another job"}, False),
        ({"rung": "ours", "missed": "error"}, True),
    ],
)
def test_what_a_run_answers_for(row: dict, expected: bool) -> None:
    assert program.wrong(row) is expected


@pytest.mark.slow
def test_what_a_run_started_ends_with_it(planted, tmp_path: Path, monkeypatch) -> None:
    """However it ends: here by a signal that nothing can catch."""
    out = tmp_path / "out"
    setting = Setting(out, dry=True, jobs=("whole", "hangs"))
    script = (
        "import sys; from ioi_fast.benchmarks.gpu import program; "
        "from ioi_fast.benchmarks.gpu.parts import Part; "
        "from ioi_fast.benchmarks.gpu.setting import Setting; "
        "program.run(Setting.of_json(sys.argv[1]), [Part('0', 'planted')], 300.0)"
    )
    command = [sys.executable, "-P", "-c", script, setting.to_json()]
    with subprocess.Popen(command, start_new_session=True) as run:
        until = time.monotonic() + 60
        while not rows_of(out, "0") and time.monotonic() < until:
            time.sleep(0.1)
        (worker_of_it,) = descendants(run.pid)
        run.kill()
    until = time.monotonic() + 20
    while alive(worker_of_it) and time.monotonic() < until:
        time.sleep(0.1)
    assert not alive(worker_of_it) and rows_of(out, "0")[0]["found"] == 1


def alive(process: int) -> bool:
    """Whether a process runs; one that has ended and is not yet taken away does not."""
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
