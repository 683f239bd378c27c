"""What is loaded of a cache: what this user wrote and nobody else could change, or nothing."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ioi_fast.kernels import build, kept_library

ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
LIBRARY = bytes(range(256)) * 8
NAME = "kept.so"
INSIDE = ("kernels", "key")


def kept(root: Path) -> Path:
    with kept_library.opened(root, INSIDE, make=True) as folder:
        kept_library.keep(folder, NAME, LIBRARY)
    return root.joinpath(*INSIDE) / NAME


def read(root: Path) -> bytes | None:
    with kept_library.opened(root, INSIDE) as folder:
        return kept_library.read(folder, NAME)


def test_what_is_kept_is_read_and_is_this_users_alone(tmp_path: Path) -> None:
    file = kept(tmp_path / "root")
    assert read(tmp_path / "root") == LIBRARY
    assert os.listdir(file.parent) == [NAME]
    for path in (file, *list(file.parents)[:3]):
        assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("part", [0, 1, 31, 32, 33, 64, 1000, 2047, 2048, 2079])
def test_no_part_of_a_library_is_read(part: int, tmp_path: Path) -> None:
    file = kept(tmp_path / "root")
    os.truncate(file, part)
    assert read(tmp_path / "root") is None


def test_no_other_bytes_are_read(tmp_path: Path) -> None:
    file = kept(tmp_path / "root")
    whole = file.read_bytes()
    for index in (0, 1000, len(whole) - 1):
        file.write_bytes(whole[:index] + bytes([whole[index] ^ 1]) + whole[index + 1 :])
        assert read(tmp_path / "root") is None
    file.write_bytes(whole + b"\0")
    assert read(tmp_path / "root") is None
    file.write_bytes(LIBRARY)  # without its checksum, as any other library
    assert read(tmp_path / "root") is None
    file.write_bytes(hashlib.sha256(b"").digest())
    assert read(tmp_path / "root") is None


def _link(file: Path) -> None:
    file.rename(file.with_name("elsewhere"))
    file.symlink_to("elsewhere")


def _pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


CHANGES = {
    "a link": _link,
    "a pipe": _pipe,
    "a folder": _folder,
    "writable by the group": lambda file: file.chmod(0o620),
    "writable by all": lambda file: file.chmod(0o602),
    "nothing": lambda file: file.unlink(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_no_file_is_read_that_others_could_have_made(change, tmp_path: Path) -> None:
    file = kept(tmp_path / "root")
    change(file)
    assert read(tmp_path / "root") is None
    if not file.is_dir():
        kept(tmp_path / "root")
        assert read(tmp_path / "root") == LIBRARY


@pytest.mark.skipif(not ROOT, reason="gives files to another user")
@pytest.mark.parametrize("levels", [0, 1, 2, 3])
def test_nothing_of_another_user_is_read(levels: int, tmp_path: Path) -> None:
    file = kept(tmp_path / "root")
    os.chown([file, *file.parents][levels], 4321, 4321)
    if levels == 0:
        assert read(tmp_path / "root") is None
        return
    with pytest.raises(kept_library.Untrusted, match="belongs to user 4321"):
        read(tmp_path / "root")


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_no_folder_is_used_that_others_can_write(level: int, mode: int, tmp_path: Path) -> None:
    file = kept(tmp_path / "root")
    file.parents[level].chmod(mode)
    with pytest.raises(kept_library.Untrusted, match="can be written by other users"):
        read(tmp_path / "root")


def test_the_root_alone_may_be_a_folder_like_tmp(tmp_path: Path) -> None:
    file = kept(tmp_path / "root")
    file.parents[2].chmod(0o1777)
    assert read(tmp_path / "root") == LIBRARY
    file.parents[1].chmod(0o1777)
    with pytest.raises(kept_library.Untrusted):
        read(tmp_path / "root")


def test_links_below_the_root_are_not_followed(tmp_path: Path) -> None:
    folder = kept(tmp_path / "root").parents[1]
    folder.rename(tmp_path / "moved")
    folder.symlink_to(tmp_path / "moved")
    with pytest.raises(OSError):
        read(tmp_path / "root")


def test_a_write_that_is_stopped_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    file = kept(tmp_path / "root")
    before = file.read_bytes()

    def stop(*names: object, **folders: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", stop)
    with pytest.raises(KeyboardInterrupt):
        kept(tmp_path / "root")
    assert os.listdir(file.parent) == [NAME] and file.read_bytes() == before


PLANTED = """
#include <stdio.h>
__attribute__((constructor)) static void run() { fclose(fopen("%s", "w")); }
"""

# Every case with the checksum that the file would have if it were kept, but for the first.
PROGRAM = """
import os, sys
from pathlib import Path
from ioi_fast.kernels import build, kept_library

root, planted, marker = map(Path, sys.argv[1:])
inside = ("kernels", build.build_key(build.find_compiler()))
file = root.joinpath(*inside) / build.LIBRARY

def keep():
    with kept_library.opened(root, inside, make=True) as folder:
        kept_library.keep(folder, build.LIBRARY, planted.read_bytes())

def bare(): file.write_bytes(planted.read_bytes())
def link(): file.rename(file.with_name("other")); file.symlink_to("other")
def open_file(): file.chmod(0o666)
def cut(): os.truncate(file, 9000)
def foreign(): os.chown(file, 4321, 4321)
def foreign_folder(): os.chown(file.parent, 4321, 4321)
def open_folder(): file.parent.chmod(0o777)

cases = [bare, link, open_file, cut, open_folder]
if os.geteuid() == 0:
    cases += [foreign, foreign_folder]
for change in cases:
    os.system(f"rm -rf '{root}'")
    keep()
    change()
    build._outcome.cache_clear()
    try:
        build.load_kernels()
    except build.BuildError as reason:
        print(change.__name__, marker.exists(), str(reason)[:40])
os.system(f"rm -rf '{root}'")
keep()
build._outcome.cache_clear()
try:
    build.load_kernels()
except build.BuildError as reason:
    print("kept", marker.exists(), str(reason)[-23:])
"""


def test_a_planted_constructor_never_runs(tmp_path: Path) -> None:
    """With a compiler that only says its version: nothing is built in the planted file's place."""
    compiler, source = build.find_compiler()[0], tmp_path / "planted.cpp"
    source.write_text(PLANTED % (tmp_path / "marker"))
    planted = tmp_path / "planted.so"
    subprocess.run([compiler, "-shared", "-fPIC", source, "-o", planted], check=True)
    broken = tmp_path / "broken"
    broken.write_text('#!/bin/sh\n[ "$1" = --version ] && echo broken\n')
    broken.chmod(0o755)
    root = tmp_path / "root"
    environment = {"CXX": str(broken), build.CACHE_VARIABLE: str(root), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM, root, planted, tmp_path / "marker"],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    lines = done.stdout.splitlines()
    assert len(lines) == (8 if ROOT else 6), done.stdout + done.stderr
    assert all(" False compiling failed" in line for line in lines[:-1]), lines
    assert lines[-1] == "kept True has none of the kernels", lines
