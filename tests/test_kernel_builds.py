"""The C++ kernels in other builds: without vector clones, and under sanitizers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ioi_fast.kernels.build import CACHE_VARIABLE, find_compiler

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
TESTS = [str(HERE / name) for name in ("test_cpu_ops.py", "test_panels.py", "test_empty_inputs.py")]
ONLY = "c++ or test_panels or product"  # tests of the kernels
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]

PROGRAM = """
import sys
import torch.utils.cpp_extension as cpp
import pytest
from ioi_fast.kernels import build
extra = {extra!r}
build.flags = lambda: {flags!r} + extra
plain = cpp.load
cpp.load = lambda *a, **k: plain(*a, **k, extra_ldflags=[f for f in extra if "sanitize" in f])
sys.exit(pytest.main([*{tests!r}, "-k", {only!r}, "-p", "no:cacheprovider", "--timeout=0"]))
"""


def run_ops(
    tmp_path: Path, flags: list[str], extra: list[str], **environment: str
) -> subprocess.CompletedProcess:
    """The tests of the operations in a process whose kernels are built with other flags."""
    program = PROGRAM.format(flags=flags, extra=extra, tests=TESTS, only=ONLY)
    return subprocess.run(
        [sys.executable, "-P", "-c", program],
        env={**os.environ, CACHE_VARIABLE: str(tmp_path), **environment},
        cwd=HERE.parent,
        capture_output=True,
        text=True,
        timeout=800,
    )


def test_portable_build_gives_the_same(tmp_path: Path) -> None:
    done = run_ops(tmp_path, ["-O2"], ["-DIOI_FAST_PORTABLE"])
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-3000:] + done.stderr


def test_avx2_build_gives_the_same(tmp_path: Path) -> None:
    done = run_ops(tmp_path, ["-O3", "-fopenmp"], ["-DIOI_FAST_PORTABLE", "-mavx2", "-mfma"])
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-3000:] + done.stderr


def sanitizer_runtime() -> str:
    """What to load first: the address sanitizer's library of the compiler, and that of C++, without
    which it can't pass on what a kernel throws. Skips when the compiler has none.
    """
    compiler = find_compiler()
    if compiler is None:
        pytest.skip("no C++ compiler")
    found = []
    for name in ("libasan.so", "libstdc++.so.6"):
        command = [compiler[0], f"-print-file-name={name}"]
        found.append(subprocess.run(command, capture_output=True, text=True).stdout.strip())
        if not Path(found[-1]).is_absolute():
            pytest.skip(f"the compiler has no {name}")
    return " ".join(found)


def has_avx512() -> bool:
    """Whether this CPU runs what is compiled for AVX-512, panels included."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text().split() if cpuinfo.exists() else []
    return {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"} <= set(flags)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("build", ["portable", "AVX-512"])
def test_sanitizers_find_nothing(build: str, tmp_path: Path) -> None:
    """The portable build, and the one with strips of panels in wide registers."""
    if build == "AVX-512" and not has_avx512():
        pytest.skip("this CPU has no AVX-512")
    chosen = "-DIOI_FAST_PORTABLE" if build == "portable" else "-march=x86-64-v4"
    done = run_ops(
        tmp_path,
        ["-O1", "-g", chosen],
        SANITIZE,
        LD_PRELOAD=sanitizer_runtime(),
        ASAN_OPTIONS="detect_leaks=0",
    )
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-3000:] + done.stderr
