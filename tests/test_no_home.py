"""Calls where there is no home folder to keep the kernels in, as in containers of another user."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from kept_kernels import copy_kernels

from ioi_fast.benchmarks import peer_environment
from ioi_fast.kernels import cache_folders

USER = 4321  # which has no entry among the users
PROGRAM = """
import os, sys
import ioi_fast
from ioi_fast.kernels import build
build.build_key(build.find_compiler())
{before}
model = ioi_fast.load("demo")
pairs = ioi_fast.ioi_prompts(model.tokenizer, n=2)
print(ioi_fast.path_patch(model, pairs, ["1.6"]).backend)
"""


def call(before: str = "", **environment: str) -> subprocess.CompletedProcess:
    """A path patch in a process that has nothing else in its environment."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM.format(before=before)],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A temporary folder that any user reaches, as pytest's own is not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o1777)
        yield Path(folder)


def kept_by(user: int, temporary: Path) -> Path:
    """The kernels as an earlier call of a user without a home would have left them."""
    file = copy_kernels(temporary / f"ioi_fast-{user}")
    if user != os.geteuid():
        for path in (file, *list(file.parents)[:3]):
            os.chown(path, user, user)
    return file


def test_a_home_that_takes_nothing(temporary: Path) -> None:
    kept_by(os.geteuid(), temporary)
    # Not even root can make anything there.
    done = call(HOME="/proc", IOI_FAST_CACHE="/proc/none", TMPDIR=str(temporary))
    assert done.stdout.strip() == "cpu/c++" and done.stderr == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_a_user_that_nobody_has_made(temporary: Path) -> None:
    kept_by(USER, temporary)
    done = call(f"os.setgid({USER}); os.setuid({USER})", TMPDIR=str(temporary))
    assert done.stdout.strip() == "cpu/c++" and done.stderr == ""


def test_nowhere_to_keep_them_is_plain_torch_and_a_note() -> None:
    done = call("import tempfile; tempfile.tempdir = '/proc'", HOME="/nonexistent")
    assert done.stdout.strip() == "cpu/torch"
    assert "without its C++ kernels, slower: no folder to keep them in" in done.stderr
    assert done.stderr.count("UserWarning") == 1


@pytest.fixture
def bare(monkeypatch, tmp_path: Path) -> Path:
    for name in ("HOME", "XDG_CACHE_HOME", cache_folders.CACHE_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "file").write_text("")
    return tmp_path / f"ioi_fast-{os.geteuid()}"


@pytest.mark.parametrize("home", ["", "relative", "/nonexistent", "{tmp}/file"])
def test_homes_that_are_none(home: str, bare: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", home.format(tmp=bare.parent))
    assert cache_folders.cache_roots() == [bare]
    with pytest.raises(RuntimeError, match="set HOME or XDG_CACHE_HOME"):
        cache_folders.user_cache()
    with pytest.raises(RuntimeError, match="set HOME or XDG_CACHE_HOME"):
        peer_environment.cache_folder()


def test_no_home_and_no_user(bare: Path, monkeypatch) -> None:
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as for an unknown user
    assert cache_folders.cache_roots() == [bare]


def test_names_in_their_order(bare: Path, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folders.cache_roots() == [tmp_path / ".cache" / "ioi_fast", bare]
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    monkeypatch.setenv(cache_folders.CACHE_VARIABLE, "named")
    assert cache_folders.cache_roots() == [Path("named").absolute(), Path("/cache/ioi_fast"), bare]
    assert cache_folders.work_folder() == Path("named").absolute()


def test_no_temporary_folder_either(bare: Path, monkeypatch) -> None:
    def none() -> str:
        raise FileNotFoundError("no usable temporary directory")

    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.setattr(tempfile, "gettempdir", none)
    assert cache_folders.cache_roots() == []
    with pytest.raises(RuntimeError, match="set IOI_FAST_CACHE"):
        cache_folders.work_folder()


@pytest.mark.slow
def test_a_damaged_library_is_built_again_without_a_home(temporary: Path) -> None:
    file = kept_by(os.geteuid(), temporary)
    os.truncate(file, 20_000)
    done = call(HOME="/nonexistent", TMPDIR=str(temporary))
    assert done.stdout.strip() == "cpu/c++" and "built again" in done.stderr
    assert file.stat().st_size > 100_000
