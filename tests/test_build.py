"""Building the C++ kernels: the cache, its key, faults, and life without a compiler."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from compare import assert_sweep
from kept_kernels import copy_kernels
from small_models import ragged_pairs, tiny_model

from ioi_fast import path_patch
from ioi_fast.engine import choose_ops
from ioi_fast.kernels import build

PROGRAM = """
import torch
from ioi_fast.kernels.build import BuildError, load_kernels
try:
    load_kernels()
except BuildError as reason:
    print("BuildError:", reason)
else:
    print("built", torch.ops.ioi_fast.gelu_delta_(torch.zeros(1, 1), torch.zeros(1, 1)).item())
"""


def in_fresh_process(**environment: str) -> str:
    run = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=280,
        check=True,
    )
    return run.stdout.strip()


@pytest.mark.slow
def test_a_build_is_kept_and_used_again(tmp_path: Path) -> None:
    # Without ninja on PATH: the one of the environment is found all the same.
    tmp_path = tmp_path / "with a space"
    bare = {build.CACHE_VARIABLE: str(tmp_path), "PATH": "/usr/local/bin:/usr/bin:/bin"}
    assert in_fresh_process(**bare) == "built 0.0"
    (library,) = tmp_path.rglob("*.so")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kernels"]
    assert [p.name for p in (tmp_path / "kernels").iterdir()] == [library.parent.name]
    made = library.stat().st_mtime_ns
    assert in_fresh_process(**bare) == "built 0.0"
    assert library.stat().st_mtime_ns == made


@pytest.mark.slow
def test_flags_in_cxx_are_kept_and_a_launcher_is_left_out(tmp_path: Path) -> None:
    compiler = build.find_compiler()[0]
    said = in_fresh_process(CXX=f"ccache {compiler} -O1", **{build.CACHE_VARIABLE: str(tmp_path)})
    assert said == "built 0.0"
    assert not list(tmp_path.rglob(f"{build.build_key([compiler])}/*.so"))
    assert list(tmp_path.rglob(f"{build.build_key([compiler, '-O1'])}/*.so"))


@pytest.mark.parametrize("named", ["no-such-compiler", 'g++ "-O1', "  "])
def test_a_missing_compiler_is_a_reason(named: str, tmp_path: Path) -> None:
    said = in_fresh_process(CXX=named, **{build.CACHE_VARIABLE: str(tmp_path)})
    assert said.startswith("BuildError: no C++ compiler found")


def test_a_compiler_that_fails_is_a_reason_and_leaves_nothing(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho 'this compiler is broken' >&2\nexit 1\n")
    broken.chmod(0o755)
    cache = tmp_path / "cache"
    said = in_fresh_process(CXX=str(broken), **{build.CACHE_VARIABLE: str(cache)})
    assert said.startswith("BuildError: compiling failed")
    assert list((cache / "kernels").iterdir()) == []


def test_a_build_that_failed_is_not_tried_again(monkeypatch) -> None:
    tried = []

    def refuse() -> None:
        tried.append(1)
        raise build.BuildError("planted")

    monkeypatch.setattr(build, "_load", refuse)
    build._outcome.cache_clear()
    try:
        for _ in range(3):
            with pytest.raises(build.BuildError, match="planted"):
                build.load_kernels()
    finally:
        monkeypatch.undo()
        build._outcome.cache_clear()
    assert len(tried) == 1


def test_a_cache_that_cannot_be_written_is_left_for_the_next(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    copy_kernels(tmp_path / "cache" / "ioi_fast")
    places = {build.CACHE_VARIABLE: str(tmp_path / "file"), "XDG_CACHE_HOME": f"{tmp_path}/cache"}
    assert in_fresh_process(**places) == "built 0.0"
    places |= {"XDG_CACHE_HOME": str(tmp_path / "file"), "TMPDIR": str(tmp_path)}
    (tmp_path / f"ioi_fast-{os.geteuid()}").write_text("")
    said = in_fresh_process(**places)
    assert said.startswith("BuildError: no folder to keep them in") and build.CACHE_VARIABLE in said


def test_the_key_names_everything_that_changes_the_binary(monkeypatch) -> None:
    compiler = build.find_compiler()
    assert compiler is not None
    plain = build.build_key(compiler)
    assert build.build_key(compiler) == plain
    monkeypatch.setattr(build, "flags", lambda: ["-O0"])
    other_flags = build.build_key(compiler)
    monkeypatch.undo()
    monkeypatch.setattr(torch, "__version__", "0.0")
    other_torch = build.build_key(compiler)
    monkeypatch.undo()
    monkeypatch.setattr(build, "SOURCES", ("vector_math.h",))
    other_source = build.build_key(compiler)
    assert len({plain, other_flags, other_torch, other_source}) == 4


def test_without_a_compiler_the_same_results_and_one_line(monkeypatch) -> None:
    model, pairs = tiny_model(seed=1), ragged_pairs(seed=2)
    compiled = path_patch(model, pairs, backend="cpu")
    assert compiled.backend == "cpu/c++"

    def refuse() -> None:
        raise build.BuildError("no C++ compiler found")

    monkeypatch.setattr(choose_ops, "load_kernels", refuse)
    with pytest.warns(
        UserWarning, match="without its C\\+\\+ kernels.*no C\\+\\+ compiler"
    ) as seen:
        plain = path_patch(model, pairs, backend="cpu")
    assert len(seen) == 1 and plain.backend == "cpu/torch"
    assert_sweep(plain.values, compiled.values, 1e-5)
