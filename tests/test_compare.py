"""The comparisons themselves: planted faults must be found, whatever their kind."""

from __future__ import annotations

import pytest
import torch
from compare import assert_close, assert_sweep

from ioi_fast.results.promised_accuracy import sweep_error

NOT_FINITE = [float("nan"), float("inf"), float("-inf")]


def truth() -> torch.Tensor:
    return torch.tensor([[3.0, -4.0], [1.0, 0.5], [1e-3, -1e-3]])


def with_entry(value: float, at: tuple[int, int] = (1, 1)) -> torch.Tensor:
    planted = truth()
    planted[at] = value
    return planted


def test_equal_tensors_pass_with_no_tolerance_at_all() -> None:
    assert_close(truth(), truth(), 0.0)
    assert_sweep(truth(), truth(), 0.0)
    assert_close(torch.zeros(3), torch.zeros(3), 0.0)
    assert_close(torch.zeros(0, 3), torch.zeros(0, 3), 0.0)


def test_close_is_close_to_the_largest_entry() -> None:
    assert_close(with_entry(0.5 + 3e-3), truth(), 1e-3)
    with pytest.raises(AssertionError, match=r"allowed ratio 1\.0e-03"):
        assert_close(with_entry(0.5 + 5e-3), truth(), 1e-3)


def test_one_wrong_entry_is_found_and_named() -> None:
    with pytest.raises(
        AssertionError, match=r"gain: error 2.*scale 4.*worst at \(1, 1\).*2\.5.*0\.5"
    ):
        assert_close(with_entry(2.5), truth(), 1e-4, what="gain")
    with pytest.raises(AssertionError, match="error of the sweep is"):
        assert_sweep(with_entry(2.5), truth(), 1e-4)


@pytest.mark.parametrize("value", NOT_FINITE)
@pytest.mark.parametrize("planted_in", ["got", "truth", "both"])
def test_what_is_not_finite_fails_wherever_it_stands(value: float, planted_in: str) -> None:
    got = truth() if planted_in == "truth" else with_entry(value)
    expected = truth() if planted_in == "got" else with_entry(value)
    with pytest.raises(AssertionError):
        assert_close(got, expected, 1.0)
    with pytest.raises(AssertionError, match="not finite"):
        assert_sweep(got, expected, 1.0)


@pytest.mark.parametrize("value", NOT_FINITE)
def test_the_place_of_a_nan_is_named(value: float) -> None:
    with pytest.raises(AssertionError, match=r"worst at \(2, 0\)"):
        assert_close(with_entry(value, (2, 0)), truth(), 1.0)


@pytest.mark.parametrize("shape", [(2, 3), (6,), (3, 2, 1), (1, 3, 2), (0,), ()])
def test_another_shape_fails_even_where_it_would_broadcast(shape: tuple[int, ...]) -> None:
    got = torch.zeros(shape)
    for expected in (truth(), torch.zeros(3, 2)):
        with pytest.raises(AssertionError, match="shape"):
            assert_close(got, expected, 1e9)
        with pytest.raises(AssertionError, match="shape"):
            assert_sweep(got, expected, 1e9)


def test_against_a_truth_of_zeros_only_zeros_pass() -> None:
    zero = torch.zeros(2, 3)
    tiny = torch.zeros(2, 3)
    tiny[1, 2] = 1e-30
    assert_sweep(zero, zero)
    assert sweep_error(tiny, zero) == float("inf")
    with pytest.raises(AssertionError):
        assert_close(tiny, zero, 1.0)
    with pytest.raises(AssertionError):
        assert_sweep(tiny, zero, 1e9)


def test_the_error_of_a_sweep_is_the_worst_senders() -> None:
    """Senders with ‖truth‖ ≥ 1 % of the largest count by their own norm, others by the largest."""
    exact = truth()
    size = exact.norm(dim=1)
    assert sweep_error(exact * torch.tensor([[1.1], [1.0], [1.0]]), exact) == pytest.approx(0.1)
    assert sweep_error(exact * torch.tensor([[1.1], [1.2], [1.0]]), exact) == pytest.approx(0.2)
    # The third sender is below 1 % of the first: its error of 4 times itself is small in the sweep.
    assert size[2] < 0.01 * size[0]
    small = with_entry(5e-3, (2, 0))
    assert sweep_error(small, exact) == pytest.approx(4e-3 / 4.0)
    # One prompt of a large sender: ‖error‖/‖truth‖ = 0.5/5.
    assert sweep_error(with_entry(3.5, (0, 0)), exact) == pytest.approx(0.1)


def test_a_sweep_with_layers_and_heads_is_one_list_of_senders() -> None:
    grid = torch.stack([truth(), 2 * truth()])
    off = grid.clone()
    off[1, 0, 0] += 0.6
    assert sweep_error(off, grid) == pytest.approx(0.06)
