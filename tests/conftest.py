"""Test modules share what stands in instruments/: comparisons, oracles, checkpoint writers.

Examples that hypothesis draws are the same in every run, so that a run that failed can be repeated;
`pytest --hypothesis-profile=drawn` draws others.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings

settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.register_profile("drawn", deadline=None)
settings.load_profile("repeatable")
sys.path.insert(0, str(Path(__file__).parent / "instruments"))


# The files that take minutes, the longest first: of processes that share the tests none should be
# left with one of them at the end.
LONGEST = (
    "test_triton_kernels.py",
    "test_triton_calls.py",
    "test_triton_resources.py",
    "test_memory.py",
    "test_build.py",
    "test_discovery_of_demo.py",
    "test_kernel_builds.py",
    "test_memory_plan.py",
    "test_reproduce.py",
    "test_reproduce_edges.py",
    "test_packaging.py",
    "test_reader_fuzzing.py",
    "test_bf16.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {name: at for at, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONGEST)))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--peer-path",
        metavar="DIR",
        help="a folder with published code that test_published_code.py compares with",
    )


@pytest.fixture(params=["c++", "torch"])
def form(request: pytest.FixtureRequest) -> ModuleType:
    """The module of one form of the operations; a machine without a compiler fails loudly."""
    from ioi_fast.kernels import cpu_ops, torch_ops
    from ioi_fast.kernels.build import load_kernels

    if request.param == "torch":
        return torch_ops
    load_kernels()
    return cpu_ops


@pytest.fixture
def counted() -> None:
    """Tensors of a call are counted, which only the compiled kernels do."""
    import torch

    from ioi_fast.kernels.build import BuildError, load_kernels

    try:
        load_kernels()
    except BuildError as reason:
        pytest.skip(f"needs the C++ kernels: {reason}")
    if not hasattr(torch.ops.ioi_fast, "workspace_peak"):
        pytest.fail("the kernels count no tensors")
