"""The workspace of the C++ kernels: memory of large tensors, and where it goes after a call."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from compare import normal

from ioi_fast.kernels import cpu_ops
from ioi_fast.kernels.build import BuildError, load_kernels
from ioi_fast.kernels.packed_linear import PackedLinear

MEGABYTE = 2**20
STATUS = Path("/proc/self/status")


@pytest.fixture(scope="module", autouse=True)
def _kernels() -> None:
    try:
        load_kernels()
    except BuildError as reason:
        pytest.skip(str(reason))


def megabytes(count: float) -> torch.Tensor:
    """A tensor of so many, every page of it touched."""
    return torch.full((int(count * MEGABYTE / 4),), 1.0)


def resident() -> float:
    for line in STATUS.read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


needs_proc = pytest.mark.skipif(not STATUS.exists(), reason="needs Linux's /proc")


@needs_proc
def test_freed_pages_serve_larger_and_smaller_tensors() -> None:
    """A chain that the C library would answer with 4 + 8 + 16 + 32 MB and the small ones beside."""
    before, most = resident(), 0.0
    with cpu_ops.workspace():
        for size in (4, 8, 16, 32, 3, 5, 7, 11, 6, 31, 32):
            tensor = megabytes(size)
            most = max(most, resident() - before)
            del tensor
        small = [megabytes(0.5) for _ in range(64)]
        most = max(most, resident() - before)
        del small
    assert 31 < most < 34, f"{most:.1f} MB for 32"
    assert resident() - before < 2


@needs_proc
def test_no_more_is_mapped_than_the_tensors_own_peak() -> None:
    """Halves are freed between others that stay, so that nothing whole is left for a large one."""
    before = resident()
    with cpu_ops.workspace():
        held = [megabytes(1) for _ in range(64)]
        stay = held[::2]
        del held
        large = megabytes(32)
        grown = resident() - before
        assert len(stay) == 32 and float(large[-1]) == 1.0
        assert all(float(tensor.sum()) == MEGABYTE / 4 for tensor in stay)
    assert 63 < grown < 66, f"{grown:.1f} MB for 64"


@needs_proc
def test_pages_within_that_peak_are_kept_for_the_next_tensor() -> None:
    before = resident()
    with cpu_ops.workspace():
        held = [megabytes(size) for size in (8, 1, 1)]
        del held
        nine = megabytes(9)
        kept = resident() - before
        assert float(nine[-1]) == 1.0
    assert 9.5 < kept < 11, f"{kept:.1f} MB for 10"


@needs_proc
def test_tensors_outlive_it_and_their_pages_go_back() -> None:
    with cpu_ops.workspace():
        tensor = megabytes(8)
    before = resident()
    assert float(tensor.sum()) == 2 * MEGABYTE
    del tensor
    assert before - resident() > 7


def test_content_survives_growth_splits_and_reuse() -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = torch.randint(4_000, 400_000, (400,), generator=generator).tolist()
    with cpu_ops.workspace():
        held: dict[int, torch.Tensor] = {}
        for index, size in enumerate(sizes):
            held[index] = torch.full((size,), float(index))
            gone = sizes[index] % (index + 1)
            held.pop(gone, None)
        for index, tensor in held.items():
            assert tensor.shape == (sizes[index],) and bool((tensor == index).all())


def test_it_opens_within_itself() -> None:
    with cpu_ops.workspace():
        with cpu_ops.workspace():
            inner = megabytes(1)
        outer = megabytes(1)
    assert torch.equal(inner, outer)


def test_closing_what_is_not_open_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="the workspace is not open"):
        torch.ops.ioi_fast.close_workspace()
    with cpu_ops.workspace():
        assert float(megabytes(1)[0]) == 1.0


def test_it_closes_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), cpu_ops.workspace():
        raise ZeroDivisionError
    with pytest.raises(RuntimeError, match="not open"):
        torch.ops.ioi_fast.close_workspace()


def test_packed_weights_made_in_it_are_freed_after_it_and_the_other_way_round() -> None:
    weight, rows = normal(256, 256, seed=1), normal(64, 256, seed=2)
    with cpu_ops.workspace():
        inside = PackedLinear(weight, None)
        expected = inside(rows)
    outside = PackedLinear(weight, None)
    assert torch.equal(outside(rows), expected) and torch.equal(inside(rows), expected)
    del inside
    with cpu_ops.workspace():
        del outside
        assert torch.equal(PackedLinear(weight, None)(rows), expected)


def test_threads_share_it() -> None:
    wrong: list[float] = []

    def work(number: int) -> None:
        with cpu_ops.workspace():
            for size in range(1, 60):
                tensor = torch.full((size * 5_000,), float(number))
                wrong.extend(tensor[tensor != number].tolist())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
