"""Builds the C++ kernels on first use into a cache folder, keyed by all that changes the binary.

A build happens in a temporary folder and its result is renamed into the cache, so a build that is
stopped leaves nothing half and two processes that build at once do not meet.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import logging
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import torch

CACHE_VARIABLE = "IOI_FAST_CACHE"
NAME = "ioi_fast_cpu"
SOURCES = (
    "attention_ops.cpp",
    "difference_ops.cpp",
    "mlp_ops.cpp",
    "panel_ops.cpp",
    "workspace_ops.cpp",
    "write_ops.cpp",
)
HEADERS = (
    "activations.h",
    "attention_lanes.h",
    "attention_unit.h",
    "difference_rows.h",
    "panel_blocks.h",
    "panels.h",
    "vector_math.h",
)

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
    if hasattr(torch.ops.ioi_fast, "layernorm_delta"):
        return  # a second library of the same names would end the process
    compiler = find_compiler()
    if compiler is None:
        named = os.environ.get("CXX")
        wanted = f"CXX={named} names none" if named else "c++, g++ or clang++; or set CXX"
        raise BuildError(f"no C++ compiler found ({wanted})")
    folder = cache_folder() / build_key(compiler)
    library = folder / f"{NAME}.so"
    if not library.is_file():
        _LOG.info("compiling the CPU kernels, once, into %s", folder)
        _build_and_load(folder, compiler)
        return
    try:
        torch.ops.load_library(str(library))
    except OSError as error:
        raise BuildError(f"{library} can't be loaded: {error}") from error


def find_compiler() -> list[str] | None:
    """The compiler and its own flags: those of $CXX, or the first of the usual names.

    A launcher in front, as in "ccache g++ -O1", is left out: torch's builder takes one word.
    """
    named = os.environ.get("CXX")
    if named:
        try:
            words = list(itertools.dropwhile(_is_launcher, shlex.split(named)))
        except ValueError:  # a quote that is not closed
            return None
        return words if words and shutil.which(words[0]) else None
    found = (shutil.which(name) for name in ("c++", "g++", "clang++"))
    return next(([path] for path in found if path), None)


def _is_launcher(word: str) -> bool:
    return Path(word).name in ("ccache", "sccache", "distcc")


def cache_folder() -> Path:
    """Where builds are kept: $IOI_FAST_CACHE, or ioi_fast in the user's cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen) / "kernels"
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "ioi_fast" / "kernels"


def flags() -> list[str]:
    """Compiler flags: no fast-math, since that would drop NaN checks and small differences."""
    chosen = ["-O3", "-fno-math-errno", "-fno-trapping-math"]
    # Without OpenMP torch's loops would run on one thread; Apple's compiler has none.
    if sys.platform != "darwin":
        chosen.append("-fopenmp")
    if platform.machine() in ("x86_64", "AMD64"):
        chosen.append("-mprefer-vector-width=512")
    return chosen


def build_key(compiler: list[str]) -> str:
    """Hash of sources, flags, compiler and torch: another of any of them is another build."""
    digest = hashlib.sha256()
    for name in (*SOURCES, *HEADERS):
        digest.update(_source(name).read_bytes())
    said = subprocess.run([compiler[0], "--version"], capture_output=True, text=True, check=False)
    for fact in (*flags(), *compiler, said.stdout, torch.__version__, platform.machine()):
        digest.update(fact.encode() + b"\0")
    return digest.hexdigest()[:20]


def _source(name: str) -> Path:
    return Path(str(files("ioi_fast.kernels"))) / "cpu" / name


def _build_and_load(folder: Path, compiler: list[str]) -> None:
    """Compiles and loads in a temporary folder and copies the library into `folder`.

    The sources are copied as well: torch's builder can't cope with a space in a path.
    """
    from torch.utils.cpp_extension import load

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = f"{folder.parent} can't be written ({error}); set {CACHE_VARIABLE}"
        raise BuildError(reason) from error
    scratch = Path(tempfile.mkdtemp(prefix="ioi_fast-"))
    try:
        for name in (*SOURCES, *HEADERS):
            shutil.copyfile(_source(name), scratch / name)
        with _environment(compiler[0]):
            load(
                NAME,
                [str(scratch / name) for name in SOURCES],
                build_directory=str(scratch),
                extra_cflags=[*flags(), *compiler[1:]],
                is_python_module=False,
            )
        _copy(scratch / f"{NAME}.so", folder / f"{NAME}.so")
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        raise BuildError(f"compiling failed: {error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _copy(library: Path, target: Path) -> None:
    """Copies a file so that it appears whole or not at all."""
    target.parent.mkdir(exist_ok=True)
    handle, beside = tempfile.mkstemp(prefix=".new-", dir=target.parent)
    os.close(handle)
    try:
        shutil.copyfile(library, beside)
        os.replace(beside, target)
    finally:
        Path(beside).unlink(missing_ok=True)


@contextmanager
def _environment(compiler: str) -> Iterator[None]:
    """torch finds ninja through PATH alone and the compiler through CXX."""
    import ninja

    before = {name: os.environ.get(name) for name in ("PATH", "CXX")}
    os.environ["PATH"] = os.pathsep.join([ninja.BIN_DIR, before["PATH"] or ""])
    os.environ["CXX"] = compiler
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def main() -> None:
    """Builds ahead of the first call, or says why not; `make setup` calls it."""
    try:
        load_kernels()
    except BuildError as reason:
        print(f"CPU kernels are not built, plain torch will be used: {reason}")
    else:
        print(f"CPU kernels are built, in {cache_folder()}")
