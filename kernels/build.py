"""Builds the C++ kernels on first use into a cache folder, keyed by all that changes the binary.

A build happens in a folder of its own that is then renamed, so a build that is stopped leaves
nothing behind and two processes that build at once do not meet.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import torch

CACHE_VARIABLE = "IOI_FAST_CACHE"
NAME = "ioi_fast_cpu"
SOURCES = ("difference_ops.cpp",)
HEADERS = ("vector_math.h",)

_LOG = logging.getLogger("ioi_fast")


class BuildError(RuntimeError):
    """The C++ kernels can't be had here; the message is the reason."""


def load_kernels() -> None:
    """Loads the C++ kernels into torch.ops.ioi_fast, building them if the cache has none.

    Raises BuildError with the reason: no compiler, or what the compiler said. Both outcomes stand
    for the rest of the process: a build that fails is not tried again at every call.
    """
    reason = _failure()
    if reason is not None:
        raise BuildError(reason)


@functools.cache
def _failure() -> str | None:
    """Why the kernels can't be had, or None once they are loaded."""
    try:
        _load()
    except BuildError as reason:
        return str(reason)
    return None


def _load() -> None:
    compiler = find_compiler()
    if compiler is None:
        raise BuildError("no C++ compiler found (c++, g++ or clang++; or set CXX)")
    folder = cache_folder() / build_key(compiler)
    library = folder / f"{NAME}.so"
    if not library.is_file():
        _LOG.info("compiling the CPU kernels, once, into %s", folder)
        _build_and_load(folder)
        return
    try:
        torch.ops.load_library(str(library))
    except OSError as error:
        raise BuildError(f"{library} can't be loaded: {error}") from error


def find_compiler() -> str | None:
    """The compiler that torch's builder will use: $CXX, or the first of the usual names."""
    named = os.environ.get("CXX")
    return shutil.which(named) if named else shutil.which("c++") or shutil.which("g++")


def cache_folder() -> Path:
    """Where builds are kept: $IOI_FAST_CACHE, or ioi_fast in the user's cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen) / "kernels"
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "ioi_fast" / "kernels"


def flags() -> list[str]:
    """Compiler flags: no fast-math, since that would drop NaN checks and small differences."""
    chosen = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd"]
    if platform.machine() in ("x86_64", "AMD64"):
        chosen.append("-mprefer-vector-width=512")
    return chosen


def build_key(compiler: str) -> str:
    """Hash of sources, flags, compiler and torch: another of any of them is another build."""
    digest = hashlib.sha256()
    for name in (*SOURCES, *HEADERS):
        digest.update(_source(name).read_bytes())
    said = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False)
    for fact in (*flags(), compiler, said.stdout, torch.__version__, platform.machine()):
        digest.update(fact.encode() + b"\0")
    return digest.hexdigest()[:20]


def _source(name: str) -> Path:
    return Path(str(files("ioi_fast.kernels"))) / "cpu" / name


def _build_and_load(folder: Path) -> None:
    """Builds beside the cache, loads the result and moves it in; torch's builder does both."""
    from torch.utils.cpp_extension import load

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".building-", dir=folder.parent))
    except OSError as error:
        reason = f"{folder.parent} can't be written ({error}); set {CACHE_VARIABLE}"
        raise BuildError(reason) from error
    try:
        with _ninja_on_path():
            load(
                NAME,
                [str(_source(name)) for name in SOURCES],
                build_directory=str(scratch),
                extra_cflags=flags(),
                is_python_module=False,
            )
        shutil.copyfile(scratch / f"{NAME}.so", scratch / "done.so")
        folder.mkdir(exist_ok=True)
        os.replace(scratch / "done.so", folder / f"{NAME}.so")
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        raise BuildError(f"compiling failed: {error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def _ninja_on_path() -> Iterator[None]:
    """torch finds ninja through PATH alone, where a virtual environment's own may not be."""
    import ninja

    before = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join([ninja.BIN_DIR, before])
    try:
        yield
    finally:
        os.environ["PATH"] = before


def main() -> None:
    """Builds ahead of the first call, or says why not; `make setup` calls it."""
    try:
        load_kernels()
    except BuildError as reason:
        print(f"CPU kernels are not built, plain torch will be used: {reason}")
    else:
        print(f"CPU kernels are built, in {cache_folder()}")
