"""What is installed and what an import does, each seen from a fresh process.

A top-level module called `kernels` would be taken by transformers for the package of that name, so
the folder kernels/ must reach Python as ioi_fast.kernels only.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import statistics
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
IMPORT_SECONDS = 0.3
LAZY = ("triton", "transformers", "rich", "jinja2", "huggingface_hub")


def run_python(code: str, cwd: Path, *flags: str, path: Path | None = None) -> str:
    """What the code prints in a process of its own that starts in `cwd`."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    command = [sys.executable, *flags, "-c", code]
    run = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


# The folder kernels/


FIND = """
from importlib.util import find_spec
print(find_spec("kernels"), find_spec("ioi_fast.kernels").origin)
"""


def test_outside_the_repository_there_is_no_module_kernels(tmp_path):
    found, ours = run_python(FIND, tmp_path).split()
    assert found == "None"
    assert Path(ours) == ROOT / "kernels" / "__init__.py"


def test_inside_the_repository_a_safe_path_finds_no_module_kernels():
    assert run_python(FIND, ROOT, "-P").split()[0] == "None"


@pytest.mark.slow
def test_inside_the_repository_transformers_loads_none_of_our_code():
    code = """
import sys
from transformers import GPT2LMHeadModel
names = [n for n in sys.modules if n.startswith("kernels.") or n.partition(".")[0] == "ioi_fast"]
print(GPT2LMHeadModel.__name__, names)
"""
    assert run_python(code, ROOT) == "GPT2LMHeadModel []"


def test_kernels_is_a_bare_docstring():
    """Anything else would run when transformers looks for the package of that name."""
    body = ast.parse((ROOT / "kernels" / "__init__.py").read_text(encoding="utf-8")).body
    assert len(body) == 1 and isinstance(ast.literal_eval(body[0].value), str)


# import ioi_fast


IMPORT = """
import json, os, sys, threading, time
import torch
state = lambda: (torch.get_num_threads(), torch.initial_seed(), str(torch.get_default_dtype()))
modules, environment, before = set(sys.modules), dict(os.environ), state()
start = time.process_time()  # what other processes do is not counted
import ioi_fast
seconds = time.process_time() - start
print(json.dumps({
    "seconds": seconds,
    "new": sorted({name.partition(".")[0] for name in set(sys.modules) - modules}),
    "environment": dict(os.environ) == environment,
    "state": state() == before,
    "threads": threading.active_count(),
    "cuda": torch.cuda.is_initialized(),
}))
"""


@pytest.fixture(scope="module")
def imports(tmp_path_factory) -> list[dict]:
    """Three imports of the package after torch, the first perhaps with files to compile."""
    folder = tmp_path_factory.mktemp("elsewhere")
    return [json.loads(run_python(IMPORT, folder)) for _ in range(3)]


def test_import_is_fast(imports):
    seconds = [one["seconds"] for one in imports]
    assert statistics.median(seconds) < IMPORT_SECONDS, f"the import took {seconds} s of the CPU"


def test_import_loads_no_optional_package(imports):
    new = imports[-1]["new"]
    assert "ioi_fast" in new
    assert not [name for name in LAZY if name in new]


def test_import_runs_nothing(imports):
    """It prints nothing (the output is nothing but JSON) and leaves the process as it was."""
    for one in imports:
        assert one["environment"] and one["state"]
        assert one["threads"] == 1 and not one["cuda"]


# The wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel of a copy of the sources, so that no build folder is left in the repository."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("ioi_fast", "kernels", "benchmarks"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps"]
    run = subprocess.run(
        [*pip, "-w", folder, source], cwd=folder, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    (built,) = folder.glob("*.whl")
    return built


def wheel_names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def source_names() -> set[str]:
    """What the wheel has to carry: every file under the three folders, by its installed name."""
    places = {"ioi_fast": "ioi_fast"}
    places |= {name: f"ioi_fast/{name}" for name in ("kernels", "benchmarks")}
    return {
        f"{place}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, place in places.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    }


def test_the_wheel_carries_every_file_and_no_top_level_kernels(wheel):
    names = wheel_names(wheel)
    assert names == source_names()
    assert {name.partition("/")[0] for name in names} == {"ioi_fast"}
    for name in (
        "ioi_fast/kernels/__init__.py",
        "ioi_fast/report/page.html",
        "ioi_fast/demo/checkpoint/config.json",
        "ioi_fast/demo/checkpoint/model.safetensors",
        "ioi_fast/demo/checkpoint/tokenizer.json",
    ):
        assert name in names


def test_the_installed_wheel_works(wheel, tmp_path):
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", site, wheel], check=True, capture_output=True)
    code = """
import ioi_fast, importlib.util
from ioi_fast.report.figures import Page, Table
from ioi_fast.report.page import render
print(ioi_fast.__file__, importlib.util.find_spec("ioi_fast.kernels").origin)
print(importlib.util.find_spec("kernels"), len(render(Page("t", "", [Table("t", "", ["a"], [])]))))
"""
    first, second = run_python(code, tmp_path, path=site).splitlines()
    assert all(Path(name).is_relative_to(site) for name in first.split())
    found, length = second.split()
    assert found == "None" and int(length) > 10_000
