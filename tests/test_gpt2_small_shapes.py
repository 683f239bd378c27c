"""Every kind of call once on GPT-2 small's shapes, against the reference in float64."""

from __future__ import annotations

import pytest
import torch
from compare import assert_close, assert_sweep
from small_models import ragged_pairs

from ioi_fast import (
    GPT2,
    Circuit,
    GPT2Config,
    PromptPairs,
    ablate,
    activation_patch,
    attention,
    pair_sweep,
    path_patch,
)

pytestmark = pytest.mark.slow
CIRCUIT = Circuit({"0.1": "S2", "3.0": "S2", "8.6": "END", "9.9": "END", "10.7": "END"})
KNOCKED = {"9.9": "END", "mlp3": "all", "5.5": "S2"}
CALLS = {
    "to the logits": (path_patch, {"senders": ["0.3", "9.6", "mlp4", ["8.6", "8.10"]]}),
    "to queries": (
        path_patch,
        {"senders": ["7.3", "2.2"], "receivers": ["9.9.q", "10.0.q", "11.2.q"]},
    ),
    "to values": (
        path_patch,
        {"senders": ["5.5", "mlp2"], "receivers": ["7.9.v", "8.6.v"], "position": "S2"},
    ),
    "to keys everywhere": (
        path_patch,
        {"senders": ["1.4"], "receivers": ["5.5.k", "mlp6"], "position": None},
    ),
    "knocked out": (
        path_patch,
        {"senders": ["8.6", "mlp1"], "receivers": ["10.7.q"], "knock_out": KNOCKED},
    ),
    "ablated": (ablate, {"variants": [{"9.9": "END"}, {"0.1": "all", "mlp5": "S2"}]}),
    "in a circuit": (
        ablate,
        {"variants": [{"9.9": "all"}, {"0.1": "S2", "8.6": "END"}], "base": CIRCUIT},
    ),
    "z": (activation_patch, {"site": "z", "position": "S2", "heads": ["5.5", ["3.0", "9.9"]]}),
    "streams": (activation_patch, {"site": "resid_mid", "position": "END"}),
}


@pytest.fixture(scope="module")
def model() -> GPT2:
    return GPT2.random(GPT2Config(), seed=0)


@pytest.fixture(scope="module")
def pairs() -> PromptPairs:
    return ragged_pairs(N=3, T=11)


@pytest.mark.parametrize("name", list(CALLS))
def test_fast_is_slow(name: str, model: GPT2, pairs: PromptPairs) -> None:
    call, asked = CALLS[name]
    truth = call(model, pairs, **asked, backend="reference", precision="fp64")
    fast = call(model, pairs, **asked, backend="cpu")
    assert fast.backend.startswith("cpu/") and truth.values.any()
    assert_sweep(fast.values, truth.values)
    assert (fast.base - truth.base).abs().max() <= 1e-4 * truth.base.abs().max().clamp(min=1)


def test_every_pair(model: GPT2, pairs: PromptPairs) -> None:
    """All 19,008 paths into queries and values at END; some of them rebuilt by the reference."""
    sweep = pair_sweep(model, pairs, ["q", "v"], "mlps", "END", per_prompt=True, backend="cpu")
    senders = ["0.1", "4.7", "8.6", "10.0"]
    asked = {"between": "mlps", "backend": "reference", "precision": "fp64"}
    for index, receiver in ((0, "9.9.q"), (0, "11.2.q"), (1, "5.5.v")):
        truth = path_patch(model, pairs, senders, [receiver], "END", **asked)
        c, d = (int(part) for part in receiver.split(".")[:2])
        rows = [sweep.values[index, *map(int, sender.split(".")), c, d] for sender in senders]
        assert_sweep(torch.stack(rows), truth.values)


def test_attention_patterns(model: GPT2, pairs: PromptPairs) -> None:
    after = {"senders": ["5.5"], "receivers": ["8.6.v", "7.3.q"], "position": "S2"}
    live_NT = torch.arange(pairs.orig.shape[1]) <= pairs.end[:, None]
    for asked in ({"run": "new"}, {"after": after}):
        heads = ["0.1", "7.3", "9.9", "11.10"]
        truth = attention(model, pairs, heads, **asked, backend="reference", precision="fp64")
        fast = attention(model, pairs, heads, **asked, backend="cpu")
        assert_close(fast[:, live_NT], truth[:, live_NT], 1e-5)
