"""compute-sanitizer in a run on a GPU, with a pretended tool that says what it is told to."""

from __future__ import annotations

import json
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

if find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)

from triton.runtime.jit import KernelInterface

from ioi_fast.benchmarks.gpu.device_tests import part as device_tests
from ioi_fast.benchmarks.gpu.device_tests import sanitizer, sanitizer_runs
from ioi_fast.benchmarks.gpu.device_tests.sanitizer import KERNELS
from ioi_fast.benchmarks.gpu.device_tests.sanitizer_reports import Reports, kernel_of
from ioi_fast.benchmarks.gpu.device_tests.sanitizer_runs import SanitizerRun
from ioi_fast.benchmarks.gpu.units import Allowance
from ioi_fast.kernels import triton_ops

WRITE = """\
========= Invalid __global__ write of size 4 bytes
=========     at gelu_delta_kernel+0x2f0 in triton_rows.py:48
=========     by thread (64,0,0) in block (0,0,0)
=========     Access to 0x7f241b000100 is out of bounds
=========     and is 1 bytes after the nearest allocation at 0x7f241b000000 of size 256 bytes
=========     Saved host backtrace up to driver entry point at kernel launch time
=========         Host Frame: cuLaunchKernelEx [0x345a] in libcuda.so.1
=========
"""
READ = """\
========= Uninitialized __global__ memory read of size 4 bytes
=========     at gelu_delta_kernel+0x70 in triton_rows.py:46
=========     by thread (31,0,0) in block (0,0,0)
=========     Access to 0x7f3c7ec000fc
=========
"""
SORT = READ.replace(
    "gelu_delta_kernel+0x70 in triton_rows.py:46", "void cub::Sort<int>(int *)+0x70"
)
COPY = """\
========= Host API memory access error at host access to 0x7f3c7ec00000 of size 960 bytes
=========     Uninitialized access at 0x7f3c7ec00010 on access by cudaMemcpy source
=========
"""
REFUSED = """\
========= Error: Device not supported. Please refer to the "Supported Devices" section
=========
"""


def log(*errors: str, count: int | None = None) -> str:
    total = len(errors) if count is None else count
    return (
        f"========= COMPUTE-SANITIZER\n{''.join(errors)}========= ERROR SUMMARY: {total} errors\n"
    )


def test_reports_are_read_in_every_form() -> None:
    flat = "\n".join("========= " + line[9:].strip() for line in (WRITE + WRITE).splitlines())
    old = (
        "========= Invalid __global__ read of size 4\n=========     at 0x88 in a.cu:4:mine(int*)\n"
    )
    for text, count in ((log(WRITE, READ), 2), (log(flat + "\n"), 2), (log(old), 1), (log(), 0)):
        assert len(Reports(text).blocks) == count
    assert Reports(log(WRITE, count=1_234)).summary == 1234 and Reports("").summary is None
    assert Reports(log(REFUSED)).refusal.startswith("Error: Device not supported")
    assert Reports("Failed to initialize NumPy: it is missing").refusal is None
    names = [kernel_of(block) for block in Reports(log(WRITE, SORT, COPY, old)).blocks]
    assert names[0] == ("gelu_delta_kernel", True)
    assert names[1] == ("void cub::Sort<int>(int *)", False)
    assert names[2][0].startswith("Host API memory access error") and names[2][1]
    assert names[3] == ("a.cu:4:mine(int*)", False)
    inlined = WRITE.replace("gelu_delta_kernel+0x2f0 in triton_rows", "expm1+0x10 in triton_math")
    assert kernel_of(Reports(log(inlined)).blocks[0]) == ("expm1", True)


FAKE = """\
#!{python} -SE
import json, sys, time
options = sys.argv[1:]
assert options[options.index("--destroy-on-device-error") + 1] == "kernel", options
told = json.load(open({told!r}))
time.sleep(told["seconds"])
open(options[options.index("--log-file") + 1], "w").write(told["log"])
for name in told["kernels"]:
    print(json.dumps(dict(kernel=name)))
print("last words")
sys.exit(told["status"])
"""


@pytest.fixture
def sanitized(tmp_path: Path, monkeypatch):
    """Rows of runs of a pretended tool that says what it is told to."""
    tool, told = tmp_path / "bin" / sanitizer_runs.TOOL, tmp_path / "told.json"
    tool.parent.mkdir()
    tool.write_text(FAKE.format(python=sys.executable, told=str(told)))
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=":")

    def row(watched: str, text: str, kernels=tuple(KERNELS), seconds=0, status=0, limit=30) -> dict:
        facts = {"log": text, "kernels": list(kernels), "seconds": seconds, "status": status}
        told.write_text(json.dumps(facts))
        run = SanitizerRun(*watched.split(), tmp_path / "logs", "cuda")
        beside = device_tests.Beside()
        beside.add("it", run, run.row)
        return beside.row("it", Allowance(time.monotonic() + limit))

    return row


def test_a_clean_run(sanitized) -> None:
    row = sanitized("memcheck KERNELS", log())
    assert "missed" not in row and row["errors"] == 0 and row["kernels"] == len(KERNELS)
    assert device_tests.line(row) == f"{len(KERNELS)} kernels, 0 errors"


def test_errors_in_a_run_that_should_be_clean(sanitized) -> None:
    row = sanitized("memcheck KERNELS", log(WRITE, WRITE), status=86)
    assert row["missed"] == "2 errors: 2 in gelu_delta_kernel" and row["status"] == "status 86"
    assert row["first"][0] == "Invalid __global__ write of size 4 bytes"
    row = sanitized("initcheck KERNELS", log(COPY), status=86)
    assert row["missed"].startswith("1 errors: 1 in Host API memory access error")
    row = sanitized("memcheck KERNELS", log(), kernels=list(KERNELS)[:-1])
    assert "attention_delta_long did not run" in row["missed"] and "last words" in row["missed"]
    assert (
        "came to no end" in sanitized("memcheck KERNELS", "========= COMPUTE-SANITIZER")["missed"]
    )


def test_what_torch_reads_is_told_by_name(sanitized) -> None:
    row = sanitized("initcheck KERNELS", log(SORT), status=86)
    assert "missed" not in row and row["others"] == {"void cub::Sort<int>(int *)": 1}
    assert "1 in void cub::Sort<int>(int *)" in device_tests.line(row)
    row = sanitized("memcheck KERNELS", log(SORT), status=86)
    assert row["missed"] == "1 errors: 1 in void cub::Sort<int>(int *)"


def test_planted_faults(sanitized) -> None:
    row = sanitized("memcheck memcheck-fault", log(WRITE), ["gelu_delta_kernel"], status=86)
    assert "missed" not in row
    assert row["caught"] == "Invalid __global__ write of size 4 bytes in gelu_delta_kernel"
    assert device_tests.line(row) == f"caught: {row['caught']}"
    assert "caught" in sanitized("initcheck initcheck-fault", log(READ))
    for tool, text in (("memcheck", log()), ("initcheck", log(SORT)), ("initcheck", log(WRITE))):
        row = sanitized(f"{tool} {tool}-fault", text)
        assert row["missed"].startswith("the planted fault was not caught")


def test_a_tool_that_refuses_the_device_or_is_not_there(sanitized, monkeypatch) -> None:
    row = sanitized("memcheck KERNELS", log(REFUSED), status=86)
    assert row["left_out"].startswith("compute-sanitizer: Error: Device not supported")
    monkeypatch.setattr(sanitizer_runs, "place", lambda: (None, ["PATH", "/a/bin"]))
    row = sanitized("memcheck KERNELS", log())
    assert row == {"left_out": "compute-sanitizer is not installed: looked in PATH, /a/bin"}


def test_a_tool_that_hangs_is_ended(sanitized) -> None:
    begun = time.monotonic()
    row = sanitized("memcheck KERNELS", log(), seconds=600, limit=0.5)
    assert row["no_time"] and "it was ended after" in row["left_out"]
    assert time.monotonic() - begun < 30


def test_every_kernel_is_named() -> None:
    launched = {n for n, one in vars(triton_ops).items() if isinstance(one, KernelInterface)}
    assert launched == set(KERNELS)


def test_a_kernel_that_fails_leaves_the_others(monkeypatch, capsys) -> None:
    def fails(device: torch.device) -> torch.Tensor:
        raise ValueError("no such tile")

    monkeypatch.setattr(sanitizer, "KERNELS", {"first": fails, "second": fails})
    with pytest.raises(RuntimeError, match="first: ValueError: no such tile; second: ValueError"):
        sanitizer.all_kernels(torch.device("cpu"))
    assert not capsys.readouterr().out
