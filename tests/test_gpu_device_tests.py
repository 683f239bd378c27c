"""The tests' part of a run on a GPU: nothing that a test does loses a row."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

if find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)

from ioi_fast.benchmarks.gpu.device_tests import part as device_tests
from ioi_fast.benchmarks.gpu.device_tests import (
    processes,
    pytest_runs,
    sanitizer_runs,
    shared_tests,
)
from ioi_fast.benchmarks.gpu.device_tests.pytest_runs import FILES, TESTS, FileRun
from ioi_fast.benchmarks.gpu.device_tests.sanitizer import KERNELS
from ioi_fast.benchmarks.gpu.setting import Setting
from ioi_fast.benchmarks.gpu.units import Allowance

PLANTED = {
    "failing": """
import pytest
def test_good(): pass
def test_bad(): assert 1 + 1 == 3, "sums"
@pytest.mark.skip
def test_left(): pass
""",
    "crashing": """
import os
def test_before(): pass
def test_crash(): os.abort()
def test_after(): pass
""",
    "hanging": """
import time
def test_quick(): pass
def test_hang(): time.sleep(600)
def test_late(): pass
""",
    "losing": """
import shared_tests
def test_access(): shared_tests.lost = lambda: "an illegal memory access"; assert False
def test_after(): pass
""",
    "broken": "import a_module_that_nobody_has",
    "shared": "import pytest\n@pytest.mark.parametrize('n', range(7))\ndef test_one(n): pass\n",
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> dict[str, dict]:
    """Rows of all planted files, which run beside each other."""
    folder = tmp_path_factory.mktemp("planted")
    # The plugin by itself: torch, which these tests don't need, takes seconds to be read.
    plugin = folder / "plugin" / Path(shared_tests.__file__).name
    plugin.parent.mkdir()
    shutil.copy(shared_tests.__file__, plugin)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pytest_runs, "PLUGIN", plugin.stem)
        patch.setenv("PYTHONPATH", str(plugin.parent), prepend=os.pathsep)
        return rows_of_planted(folder)


def rows_of_planted(folder: Path) -> dict[str, dict]:
    runs: dict[str, FileRun] = {}
    for name, text in PLANTED.items():
        file = folder / f"test_{name}.py"
        file.write_text(text)
        runs[name] = FileRun(file, folder / name, None, count=2 if name == "shared" else 1)
        runs[name].start()
    until = time.monotonic() + 120
    while time.monotonic() < until:
        for run in runs.values():
            run.look()
        hangs = any("test_hang" in line.get("begun", "") for _, line in runs["hanging"]._told())
        if hangs and [name for name, run in runs.items() if run.busy] == ["hanging"]:
            break
        time.sleep(0.1)
    for run in runs.values():
        run.stop()
    return {name: run.row() for name, run in runs.items()}


def test_a_failing_test_is_a_row(rows: dict) -> None:
    row = rows["failing"]
    assert row["counts"] == {"passed": 1, "failed": 1, "skipped": 1, "error": 0, "not run": 0}
    (failure,) = row["failures"]
    assert failure["test"] == "test_bad" and "sums" in failure["said"][0]
    assert row["missed"] == "1 failed: test_bad" and row["status"] == ["status 1"]
    assert device_tests.line(row).startswith("1 of 3 tests passed, 1 skipped")


def test_a_crash_takes_its_own_test_alone(rows: dict) -> None:
    row = rows["crashing"]
    assert row["counts"] == {"passed": 2, "failed": 0, "skipped": 0, "error": 1, "not run": 0}
    assert row["missed"] == "1 ended in errors: test_crash"
    assert row["failures"][0]["said"][0] == "its process ended: SIGABRT"
    assert row["processes"] == 2 and row["status"] == ["SIGABRT", "status 0"]


def test_a_test_that_hangs_is_ended_and_the_others_count(rows: dict) -> None:
    row = rows["hanging"]
    assert row["counts"] == {"passed": 1, "failed": 0, "skipped": 0, "error": 0, "not run": 1}
    assert row["missed"] == "still running when time was up: test_hang; 1 did not run"


def test_after_a_lost_device_another_process_goes_on(rows: dict) -> None:
    row = rows["losing"]
    assert row["counts"]["failed"] == row["counts"]["passed"] == 1
    assert row["failures"][0]["said"][-1] == "the device was lost: an illegal memory access"


def test_a_file_that_can_not_be_read_is_an_error(rows: dict) -> None:
    row = rows["broken"]
    assert "1 ended in errors" in row["missed"] or "2 ended in errors" in row["missed"]
    assert any("a_module_that_nobody_has" in str(one["said"]) for one in row["failures"])


def test_processes_share_the_tests_of_a_file(rows: dict) -> None:
    row = rows["shared"]
    assert row["tests"] == row["counts"]["passed"] == 7 and row["processes"] == 2
    assert "missed" not in row


def test_every_file_is_named_or_is_of_the_interpreter_alone() -> None:
    alone = {"test_memory_of_kernels.py", "test_placement.py", "test_gpu_rehearsal.py"}
    assert set(FILES) <= {path.name for path in TESTS.glob("test_*.py")} <= set(FILES) | alone
    assert next(iter(FILES)) == "test_kernels.py"


def test_a_device_by_number_is_the_first_that_a_process_sees(monkeypatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert processes.surroundings("cuda:1")["CUDA_VISIBLE_DEVICES"] == "1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    found = processes.surroundings("cuda:1")
    assert found["CUDA_VISIBLE_DEVICES"] == "6" and "TRITON_INTERPRET" not in found
    assert found["IOI_FAST_TEST_DEVICE"] == "cuda"
    assert processes.surroundings("cuda")["CUDA_VISIBLE_DEVICES"] == "4,6"
    assert processes.surroundings(None)["TRITON_INTERPRET"] == "1"


def test_what_a_process_started_ends_with_it(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    command = ["sh", "-c", "sleep 600 & echo $!; wait"]
    process = processes.start(command, dict(os.environ), log)
    until = time.monotonic() + 30
    while not log.read_text().endswith("\n") and time.monotonic() < until:
        time.sleep(0.05)
    stat = Path("/proc") / log.read_text().strip() / "stat"
    assert stat.exists()
    processes.end(process)
    while stat.exists() and ") Z " not in stat.read_text() and time.monotonic() < until:
        time.sleep(0.05)
    assert processes.ending(process.returncode) == "SIGKILL" and time.monotonic() < until


def test_an_installed_package_has_no_tests(monkeypatch, tmp_path: Path) -> None:
    setting = Setting(tmp_path)
    names = [unit.name for unit in device_tests.units(setting)]
    monkeypatch.setattr(pytest_runs, "TESTS", tmp_path / "none")
    monkeypatch.setattr(sanitizer_runs, "place", lambda: (None, []))
    found = {one.name: one.run(Allowance(time.monotonic())) for one in device_tests.units(setting)}
    assert list(found) == names and all("left_out" in row for row in found.values())
    assert "part of a checkout" in found["test_kernels.py"]["left_out"]
    monkeypatch.undo()


def test_a_machine_without_pytest(monkeypatch) -> None:
    """Nothing but the plugin asks for it."""
    script = (
        "import sys; sys.modules['pytest'] = None; import ioi_fast.benchmarks.gpu.device_tests.part"
    )
    subprocess.run([sys.executable, "-P", "-c", script], check=True)
    names = ("FOLDER", "FROM", "LOST")
    assert all(getattr(pytest_runs, one) == getattr(shared_tests, one) for one in names)
    monkeypatch.setattr(pytest_runs, "find_spec", lambda name: None)
    assert pytest_runs.why_not() == "not installed: pytest, hypothesis"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_dry_run(tmp_path: Path) -> None:
    """A few tests of each file, every kernel, and both faults, in the interpreter."""
    units = device_tests.units(Setting(tmp_path, dry=True))
    found = {one.name: one.run(Allowance(time.monotonic() + 500)) for one in units}
    assert len(found) == len(FILES) + 4
    for name, row in found.items():
        assert "missed" not in row and "left_out" not in row and row["dry"], (name, row)
        assert "dry" in device_tests.line(row)
    assert "OutOfBounds" in found["memcheck of a fault"]["caught"]
    assert found["memcheck"]["kernels"] == len(KERNELS)
