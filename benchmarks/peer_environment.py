"""Virtual environments for peer libraries, apart from the project's own and built once.

An environment is the folder <name>-<key> below `cache_folder()`. The key covers the pinned
requirements and the interpreter, so that a change of either makes another environment and an
existing folder is always whole: it is built under another name and renamed when pip has finished.
A build with a CPU build of torch takes about two minutes and 1.6 GB.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ioi_fast.kernels.cache_folders import user_cache

CACHE_VARIABLE = "IOI_FAST_PEERS"

# How pip gives up, and why an index may be to blame: it could not be reached, or nothing there has
# any version of the package. A version that is missing among others is a wrong pin, which has to
# fail and not to skip.
_GAVE_UP = re.compile("No matching distribution found|Max retries exceeded")
_NO_INDEX = re.compile("from versions: none|connection broken by|Max retries exceeded")


REQUIREMENTS = Path(__file__).parent / "requirements"


class NoPackageIndex(Exception):
    """An environment is missing and no package index is there to build it from."""


def cache_folder() -> Path:
    """The folder of all environments: $IOI_FAST_PEERS, or ioi_fast/peers in the user's cache."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).absolute()  # scripts run in other folders
    try:
        return user_cache() / "peers"
    except RuntimeError as problem:
        raise RuntimeError(f"{problem}, or {CACHE_VARIABLE}") from None


def requirements(name: str) -> Path:
    """The pinned requirements of a peer's environment."""
    return REQUIREMENTS / f"{name}.txt"


def python_of(pins: Path) -> Path:
    """The interpreter of an environment with these pinned requirements, built if it isn't there.

    Raises NoPackageIndex when it can't be built for want of an index, RuntimeError with the last
    lines of pip when it can't be built for another reason.

    >>> python_of(requirements("transformer_lens_4"))  # doctest: +SKIP
    PosixPath('/home/me/.cache/ioi_fast/peers/transformer_lens_4-0d91c3…/bin/python')
    """
    home = cache_folder() / f"{pins.stem}-{_key(pins)}"
    if not home.is_dir():
        with _alone(home.with_name(f"{home.name}.lock")):
            if not home.is_dir():  # another process may have built it meanwhile
                _build(pins, home)
    return _python(home)


def run_script(python: Path, script: Path, *arguments: object, folder: Path) -> str:
    """What a script prints, run in `folder` by a peer's interpreter without a network.

    Raises RuntimeError with the end of what it complained of when it fails.
    """
    environment = {
        **os.environ,
        "HF_HOME": str(folder),  # no tokens and no cached models of the user
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    # Isolated, so that neither this folder nor PYTHONPATH brings modules of the project.
    command = [python, "-I", script, *arguments]
    return _run(command, cwd=folder, env=environment)


def _key(pins: Path) -> str:
    interpreter = (sys.version, sys.base_prefix, sysconfig.get_platform())
    parts = (pins.read_text("utf-8"), *interpreter)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _python(home: Path) -> Path:
    return home / "bin" / "python"


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Holds a lock file; the system lets go of it even when the process is killed."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(pins: Path, home: Path) -> None:
    prefix = f"{home.name}.building-"
    for left in home.parent.glob(f"{prefix}*"):  # by a build that was killed
        shutil.rmtree(left, ignore_errors=True)
    building = Path(tempfile.mkdtemp(prefix=prefix, dir=home.parent))
    venv.create(building, symlinks=True, with_pip=False)
    try:
        _install(pins, building)
    except RuntimeError as error:
        shutil.rmtree(building)
        if _GAVE_UP.search(str(error)) and _NO_INDEX.search(str(error)):
            raise NoPackageIndex(
                f"{home} is missing and pip can't build it from {pins.name}: "
                f"{str(error).splitlines()[-1]}"
            ) from error
        raise
    # Scripts in bin/ keep the old name in their first line, the interpreter finds its new home.
    building.rename(home)


def _install(pins: Path, home: Path) -> None:
    """Build tools and torch first, so that the rest neither builds against nor pulls in another."""
    index = os.environ.get("TORCH_INDEX")  # as in the Makefile: where torch alone is taken from
    for pin in re.findall(r"^(?:setuptools|torch)==\S+", pins.read_text("utf-8"), re.M):
        where = ["--index-url", index] if index and pin.startswith("torch") else []
        _pip(home, "--no-deps", *where, pin)
    _pip(home, "--no-build-isolation", "--requirement", pins)


def _pip(home: Path, *arguments: object) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet"]
    # Without a retry pip does not say that a connection failed.
    _run([*pip, "--retries=2", "--python", _python(home), "install", *arguments])


def _run(command: list[object], **settings: object) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **settings)
    if done.returncode:
        raise RuntimeError(f"{Path(command[0]).name} failed:\n{done.stderr.strip()[-4000:]}")
    return done.stdout
