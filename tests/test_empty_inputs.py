"""Operations on nothing: no rows, no variants, no changed slots, no heads named."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from compare import assert_close, normal

from ioi_fast.kernels import cpu_ops, reference
from ioi_fast.kernels.build import load_kernels
from ioi_fast.kernels.panel_linear import PanelLinear


@pytest.mark.parametrize("K", [8, 5])
@pytest.mark.parametrize("T", [1, 3])
def test_attention_delta_with_no_changed_slot(T: int, K: int, form: ModuleType) -> None:
    """Only queries move: there is no private key or value to point at."""
    P, N, S, H = 2, 2, 7, 3
    base = [normal(N, rows, H, K, seed=rows) for rows in (T, S, S)]
    delta_q, none = normal(P, N, T, H, K, seed=1), torch.empty(P, N, 0, H, K)
    at, changed = torch.full((N, T), S - 1), torch.empty(N, 0, dtype=torch.long)
    given = (*base, delta_q, none, none, 0.3, at, changed)
    exact = [
        x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in given
    ]
    got = form.attention_delta(*given)
    assert_close(got, reference.attention_delta(*exact), 5e-6)
    if form is cpu_ops:
        assert torch.equal(torch.ops.ioi_fast.attention_delta(*given), got)


@pytest.mark.parametrize("axis", range(4))
def test_attention_of_none(axis: int, form: ModuleType) -> None:
    sizes = [2, 3, 2, 4]  # prompts, tokens, heads, columns
    sizes[axis] = 0
    rows, delta = torch.empty(*sizes), torch.empty(5, *sizes)
    assert form.attention_delta(rows, rows, rows, delta, delta, delta, 1.0).shape == delta.shape
    none = torch.empty(0, *sizes)
    assert form.attention_delta(rows, rows, rows, none, none, none, 1.0).shape == none.shape
    assert form.attention(rows, rows, rows, 1.0).shape == rows.shape


@pytest.mark.parametrize("shape", [(0, 3, 8), (4, 0, 8), (0, 0, 8), (0, 8)])
@pytest.mark.parametrize("activation", sorted(reference.ACTIVATIONS))
def test_rows_of_none(shape: tuple[int, ...], activation: str, form: ModuleType) -> None:
    base, delta, gain = torch.ones(*shape[-2:]), torch.empty(shape), torch.ones(8)
    assert form.layernorm_delta(base, delta, gain, 1e-5).shape == shape
    assert form.readout_delta(base, delta, gain, 1e-5, base).shape == shape[:-1]
    assert form.gelu_delta(base, delta.clone(), activation).shape == shape
    w_in, w_out = (
        form.linear(torch.ones(size), torch.ones(size[1])) for size in ((8, 40), (40, 8))
    )
    mlp = (gain, 1e-5, w_in, w_out, activation)
    pre = torch.ones(shape[-2], 40)
    assert form.mlp_delta(base, pre, delta, *mlp).shape == shape
    assert form.add_mlp_delta(base, pre, delta.clone(), *mlp).shape == shape
    index = torch.empty(0, dtype=torch.long)
    assert form.mlp_delta(base, pre, torch.empty(0, 8), *mlp, index).shape == (0, 8)
    for out, width in zip(form.mlp(base[:0], gain, gain, *mlp[1:]), (40, 8), strict=True):
        assert out.shape == (0, width)


@pytest.mark.parametrize(("W", "C", "D"), [(0, 3, 5), (2, 0, 5), (2, 3, 0)])
def test_heads_that_write_nothing(W: int, C: int, D: int, form: ModuleType) -> None:
    delta, places = normal(2, C, D, seed=1), torch.arange(W)
    out = form.head_write(delta.clone(), places, torch.ones(C, 2, 4), places, torch.ones(2, 4, D))
    assert torch.equal(out, delta)


def test_weights_of_nothing_are_refused() -> None:
    """A sum over no numbers would leave what comes out as it was in memory."""
    load_kernels()
    panels = PanelLinear(torch.empty(0, 40), None).panels
    with pytest.raises(RuntimeError, match="panels must be"):
        torch.ops.ioi_fast.panel_linear(torch.empty(3, 0), panels, None, 40)
