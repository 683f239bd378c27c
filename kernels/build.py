"""Builds the C++ kernels on first use into a cache folder, keyed by all that changes the binary.

A build happens in a temporary folder and its result is renamed into the cache, so a build that is
stopped leaves nothing half and two processes that build at once do not meet. A cache folder that
can't be used, or that others can change, is left for the next one (cache_folders.py), with a note.
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
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import torch

from ioi_fast.kernels import kept_library
from ioi_fast.kernels.cache_folders import CACHE_VARIABLE, cache_roots

NAME = "ioi_fast_cpu"
LIBRARY = f"{NAME}.so"
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
_LOCKS: dict[int, threading.Lock] = {}


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


def _failure() -> str | None:
    """Why the kernels can't be had, or None once they are loaded."""
    # A lock of this process alone: one that another thread holds at a fork stays with the parent.
    with _LOCKS.setdefault(os.getpid(), threading.Lock()):
        return _outcome()


@functools.cache
def _outcome() -> str | None:
    try:
        _load()
    except BuildError as reason:
        return str(reason)
    except Exception as problem:  # whatever it may be: a call goes on without the kernels
        return f"they can't be built or loaded: {type(problem).__name__}: {problem}"
    return None


def _load() -> None:
    if _loaded():
        return  # a second library of the same names would end the process
    compiler = find_compiler()
    if compiler is None:
        named = os.environ.get("CXX")
        wanted = f"CXX={named} names none" if named else "c++, g++ or clang++; or set CXX"
        raise BuildError(f"no C++ compiler found ({wanted})")
    inside = ("kernels", build_key(compiler))
    refused: list[str] = []
    for root in cache_roots():
        if _load_from(root, inside, compiler, refused):
            return
    reasons = "; ".join(refused) or "there is neither a home nor a temporary folder"
    raise BuildError(f"no folder to keep them in ({reasons}); set {CACHE_VARIABLE} to one")


def _load_from(root: Path, inside: Sequence[str], compiler: list[str], refused: list[str]) -> bool:
    """Loads what is kept below a root, or builds it there; False, with a reason more, if the root
    can't be used."""
    path = root.joinpath(*inside) / LIBRARY
    try:
        library = _kept(root, inside, path)
        if library is None:
            with kept_library.opened(root, inside[:1], make=True) as folder:
                kept_library.try_out(folder)
    except kept_library.Untrusted as problem:
        refused.append(str(problem))
        _LOG.warning("kernels are not taken from there: %s", problem)
        return False
    except OSError as problem:
        refused.append(f"{root} can't be used: {problem.strerror or problem}")
        return False
    if library is None:
        why = f" ({'; '.join(refused)})" if refused else ""
        _LOG.info("compiling the CPU kernels, once, into %s%s", path.parent, why)
        library = _built(compiler)
        try:
            with kept_library.opened(root, inside, make=True) as folder:
                kept_library.keep(folder, LIBRARY, library)
        except OSError as problem:
            _LOG.warning("the kernels could not be kept in %s: %s", path.parent, problem)
    if not _loaded():  # a build is loaded where it was made, if files there may be run
        kept_library.load(library, path)
    if not _loaded():
        raise BuildError(f"{path} has none of the kernels")
    return True


def _kept(root: Path, inside: Sequence[str], path: Path) -> bytes | None:
    """The library kept below a root, None where it has to be built; OSError as `opened` raises."""
    try:
        with kept_library.opened(root, inside) as folder:
            library = kept_library.read(folder, LIBRARY)
    except FileNotFoundError:
        return None
    if library is None and os.path.lexists(path):
        _LOG.warning("%s is damaged or another user's: it is built again", path)
    return library


def _loaded() -> bool:
    return hasattr(torch.ops.ioi_fast, "layernorm_delta")


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


def _built(compiler: list[str]) -> bytes:
    """The library, compiled in a temporary folder; raises BuildError with what the compiler said.

    The sources are copied there: torch's builder can't cope with a space in a path.
    """
    scratch = Path(tempfile.mkdtemp(prefix="ioi_fast-"))
    library = scratch / LIBRARY
    try:
        for name in (*SOURCES, *HEADERS):
            shutil.copyfile(_source(name), scratch / name)
        from torch.utils.cpp_extension import load

        try:
            with _environment(compiler[0]):
                load(
                    NAME,
                    [str(scratch / name) for name in SOURCES],
                    build_directory=str(scratch),
                    extra_cflags=[*flags(), *compiler[1:]],
                    is_python_module=False,
                )
        except OSError:
            # Linked, and not to be loaded where files of the temporary folder may not be run.
            if not library.is_file():
                raise
        return library.read_bytes()
    except Exception as error:  # whatever torch's builder may raise: a call goes on without it
        raise BuildError(f"compiling failed: {_brief(str(error))}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _brief(text: str) -> str:
    """How a long complaint of a compiler begins and ends."""
    return text if len(text) < 1500 else f"{text[:400]} … {text[-1000:]}"


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
        print("CPU kernels are built")
