"""Waves that are captured and replayed: the same answers, under the rules of a recording."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest
import torch
from compare import assert_sweep
from device import DEVICE, ON_GPU
from small_models import ragged_pairs, tiny_model

from ioi_fast import GPT2, path_patch
from ioi_fast.engine.wave_graphs import WaveGraphs
from ioi_fast.kernels import triton_graph
from ioi_fast.kernels.triton_graph import NotRecordable, recorded, rehearsed

HOST, PAIRS = tiny_model(), ragged_pairs(8)
MODEL = HOST.to(device=DEVICE)
FEW = ["0.1", "1.2", "mlp1", ["0.0", "2.1"], ["mlp0", "0.2"]]
FORM = "recorded" if ON_GPU else "rehearsed"
SLOW = pytest.mark.slow


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> list:
    """Work that was captured, as it was captured; runs go by two prompts."""
    monkeypatch.setattr("ioi_fast.plan.path_patch.TOKENS_PER_BLOCK", 14)
    monkeypatch.setenv("IOI_FAST_CUDA_GRAPHS", "1")
    monkeypatch.setattr(MODEL, "_made", None)
    seen, form = [], recorded if ON_GPU else rehearsed

    def capture(work: Callable[[], object]) -> Callable[[], object]:
        again, calls = form(work), []
        seen.append(calls)

        def counted() -> object:
            calls.append(None)
            return again()

        return counted

    monkeypatch.setattr(triton_graph, FORM, capture)
    return seen


@pytest.mark.parametrize(
    "asked",
    [
        {},
        pytest.param({"precision": "bf16"}, marks=SLOW),
        pytest.param({"between": "nothing"}, marks=SLOW),
        pytest.param({"receivers": ["2.1.q", "1.0.v"], "position": "END"}, marks=SLOW),
        pytest.param({"receivers": ["mlp2", "2.0.k"], "position": "S2"}, marks=SLOW),
        pytest.param({"knock_out": {"0.2": "END"}}, marks=SLOW),
    ],
    ids=str,
)
def test_replays_give_what_plain_waves_give(asked: dict, captures: list, monkeypatch) -> None:
    """Four blocks of prompts: the second is captured, and run as the third and fourth are."""
    got = path_patch(MODEL, PAIRS, FEW, **asked, backend="triton")
    assert [len(calls) for calls in captures] == [3], "one shape, three times"
    monkeypatch.setattr("ioi_fast.engine.wave_graphs.WaveGraphs.run", _plainly)
    plain = path_patch(MODEL, PAIRS, FEW, **asked, backend="triton")
    assert torch.equal(got.values, plain.values) and len(captures) == 1
    exact = {**asked, "precision": "fp64", "backend": "reference"}
    truth = path_patch(HOST, PAIRS, FEW, **exact)
    assert_sweep(got.values, truth.values, 2e-2 if "precision" in asked else 1e-4)


def _plainly(self, wave, receivers, advance):
    from ioi_fast.engine import wave_graphs

    return wave_graphs._run(wave, receivers, advance)


@SLOW
def test_shapes_that_come_once_budgets_and_frozen_mlps_are_not_captured(captures: list) -> None:
    asked = {"senders": FEW, "backend": "triton"}
    for how in (
        {"pairs": ragged_pairs(2)},
        {"pairs": PAIRS, "max_memory": 10**9},
        {"pairs": PAIRS, "knock_out": {"mlp1": "END"}},
    ):
        path_patch(MODEL, **how, **asked)
    assert not captures
    everywhere = {"position": None, "receivers": ["2.1.v"]}
    path_patch(MODEL, pairs=PAIRS, **everywhere, **asked)
    shapes = sum(1 + len(calls) for calls in captures)
    assert shapes <= 4, "blocks of unlike many cells have graphs of their own"


@SLOW
def test_calls_that_are_alike_share_what_was_captured(captures: list, monkeypatch) -> None:
    monkeypatch.setattr("ioi_fast.plan.path_patch.TOKENS_PER_BLOCK", 512)
    truth = path_patch(HOST, PAIRS, FEW, backend="reference", precision="fp64")
    for turn in range(4):
        got = path_patch(MODEL, PAIRS, FEW, backend="triton")
        assert [len(calls) for calls in captures] == ([] if turn == 0 else [turn])
        assert_sweep(got.values, truth.values)
    path_patch(MODEL, PAIRS, FEW[:2], backend="triton")
    path_patch(MODEL, PAIRS, FEW, between="nothing", backend="triton")
    assert len(captures) == 1, "other variants and other paths are other waves"


@SLOW
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_changed_weights_are_captured_anew(captures: list, precision: str) -> None:
    how = {"backend": "triton", "precision": precision}
    model = tiny_model().to(device=DEVICE)
    before = path_patch(model, PAIRS, FEW, **how).values
    model.weights.blocks[1].w_in.mul_(2)
    got = path_patch(model, PAIRS, FEW, **how).values
    new = GPT2(model.config, model.weights.each(torch.Tensor.clone))
    assert torch.equal(got, path_patch(new, PAIRS, FEW, **how).values)
    assert not torch.equal(got, before) and len(captures) == 3


@SLOW
def test_few_graphs_are_kept(captures: list) -> None:
    for sender in ("0.0", "0.1", "0.2", "1.0", "1.1", "1.2"):
        path_patch(MODEL, PAIRS, [sender], backend="triton")
    (graphs,) = [one for one in MODEL.made.packed.values() if isinstance(one, WaveGraphs)]
    assert len(captures) == 6 and len(graphs._captured) == 4


@SLOW
def test_all_that_a_graph_reads_lives_as_long_as_it(captures: list, monkeypatch) -> None:
    """A recording holds addresses and no tensors: what keeps them is the captured wave."""

    def forgetful(work):
        made = work()
        return lambda: made

    monkeypatch.setattr(triton_graph, FORM, forgetful)
    path_patch(MODEL, PAIRS, FEW, backend="triton")
    gc.collect()
    (graphs,) = [one for one in MODEL.made.packed.values() if isinstance(one, WaveGraphs)]
    (one,) = graphs._captured.values()
    steps = [step for step in one.wave.steps if step.writes is not None]
    assert len(steps) == 3 and all(rows.numel() for step in steps for rows in step.writes)


@SLOW
def test_graphs_are_off_until_they_are_asked_for(captures: list, monkeypatch) -> None:
    monkeypatch.delenv("IOI_FAST_CUDA_GRAPHS")
    path_patch(MODEL, PAIRS, FEW, backend="triton")
    assert not captures


@SLOW
def test_progress_counts_replayed_layers(captures: list, monkeypatch) -> None:
    counted: list[int] = []
    monkeypatch.setattr("ioi_fast.calls.path_patch.bar", lambda *_: _Counting(counted))
    path_patch(MODEL, PAIRS, FEW, backend="triton", progress=False)
    assert captures and sum(counted) == 4 * HOST.config.n_layer


class _Counting:
    def __init__(self, counted: list[int]) -> None:
        self._counted = counted

    def __enter__(self) -> Callable[[int], None]:
        return self._counted.append

    def __exit__(self, *_: object) -> None:
        pass


@pytest.mark.skipif(ON_GPU, reason="of the rehearsal: a GPU refuses by itself")
@pytest.mark.parametrize(
    "work",
    [
        lambda x: x.sum().item(),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x.long().unique(),
        lambda x: x.long().unique_consecutive(),
        lambda x: bool((x > 0).all()),
        lambda x: x.masked_select(x > 0),
        lambda x: x + torch.tensor([1.0, 2.0, 3.0]),
        lambda x: x.index_put_((x > 0,), x.new_zeros(())),
    ],
)
def test_what_a_recording_forbids_is_seen(work: Callable) -> None:
    x = torch.tensor([-1.0, 2.0, 3.0])
    again = rehearsed(lambda: work(x))
    with pytest.raises(NotRecordable):
        again()


@SLOW
def test_a_wave_that_waits_is_seen(captures: list, monkeypatch) -> None:
    """A planted fault: rows of a write that are asked of the device."""
    if ON_GPU:
        pytest.skip("of the rehearsal: a GPU refuses by itself")
    from ioi_fast.kernels import triton_ops

    write = triton_ops.head_write

    def waiting(delta, rows, *rest):
        return write(delta, rows[rows.unique(return_inverse=True)[1].argsort()], *rest)

    monkeypatch.setattr(triton_ops, "head_write", waiting)
    with pytest.raises(NotRecordable, match="_unique2 waits"):
        path_patch(MODEL, PAIRS, FEW, backend="triton")
