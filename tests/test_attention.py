"""Attention patterns of the fast path against the reference in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from compare import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import moved_pairs, ragged_pairs, shifted_pairs, tiny_model

from ioi_fast import GPT2, PromptPairs, attention
from ioi_fast.asked.sources import SOURCES

TOLERANCE = 1e-5
PROMPTS = {"ragged": ragged_pairs, "moved": moved_pairs, "shifted": shifted_pairs}
RECEIVERS = [["1.0.q", "2.0.k", "2.2.v"], ["mlp1"], ["1.1.v", "2.1.q"], ["0.0.q"], "logits"]


def compare(model: GPT2, pairs: PromptPairs, heads: object, run: str = "orig", **asked: object):
    """The fast patterns, which equal the true ones wherever a query stands up to END."""
    truth = attention(model, pairs, heads, run, backend="reference", precision="fp64", **asked)
    fast = attention(model, pairs, heads, run, backend="cpu", **asked)
    assert fast.shape == truth.shape and fast.dtype == torch.float32 and fast.isfinite().all()
    end = pairs.end if run == "orig" else pairs.new_end
    live_NT = torch.arange(truth.shape[2]) <= end[:, None]
    assert_close(fast[:, live_NT], truth[:, live_NT], TOLERANCE)
    return fast


@pytest.mark.parametrize("run", ["orig", "new"])
@pytest.mark.parametrize("prompts", list(PROMPTS))
def test_clean_runs(prompts: str, run: str) -> None:
    compare(tiny_model(), PROMPTS[prompts](), "heads", run)
    compare(tiny_model(), PROMPTS[prompts](N=5), ["1.2", "0.0"], run)


@pytest.mark.parametrize("receivers", RECEIVERS, ids=str)
@pytest.mark.parametrize("position", ["END", "S2", None])
@pytest.mark.parametrize("sender", ["0.1", "mlp0", ["0.0", "1.2"]], ids=str)
def test_after_a_path_patch(sender: object, position: object, receivers: object) -> None:
    """Every head is looked at: before, at and after the receivers, and in the last layer."""
    model, pairs = tiny_model(), ragged_pairs()
    for between in ("mlps", "nothing"):
        after = {"senders": [sender], "receivers": receivers, "between": between}
        compare(model, pairs, "heads", after={**after, "position": position})


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("prompts", [moved_pairs, shifted_pairs], ids=["moved", "shifted"])
def test_after_a_path_patch_under_knock_outs(prompts: Callable, source: str) -> None:
    for receivers in (["2.0.q", "1.1.k"], "logits"):
        after = {
            "senders": ["0.1"],
            "receivers": receivers,
            "position": "S2",
            "knock_out": {"0.0": "END", "1.0": "S2"},
            "knock_out_source": source,
        }
        compare(tiny_model(), prompts(), "heads", after=after)


def test_a_patch_changes_the_rows_it_reaches_and_no_others() -> None:
    model, pairs = tiny_model(), ragged_pairs()
    after = {"senders": ["0.0"], "receivers": ["1.1.q"], "position": "S2"}
    changed = compare(model, pairs, ["0.2", "1.1", "1.0", "2.0"], after=after)
    moved = (changed - compare(model, pairs, ["0.2", "1.1", "1.0", "2.0"])).ne(0).any(-1)
    tokens = torch.arange(moved.shape[2])
    at_role = tokens == pairs.positions["S2"][:, None]
    assert not moved[0].any() and not moved[2].any(), "earlier, and beside the receiver"
    assert moved[1].any() and not (moved[1] & ~at_role).any()
    since = (tokens >= pairs.positions["S2"][:, None]) & (tokens <= pairs.end[:, None])
    assert moved[3].any() and not (moved[3] & ~since).any()


@settings(max_examples=25)
@given(data=st.data())
def test_any_model_any_patch(data: st.DataObject) -> None:
    layers, heads = data.draw(st.integers(2, 4)), data.draw(st.sampled_from([1, 2, 3]))
    model = tiny_model(data.draw(st.integers(0, 9)), n_layer=layers, n_head=heads)
    pairs = data.draw(st.sampled_from(list(PROMPTS.values())))(N=data.draw(st.integers(1, 5)))
    place = st.builds("{}.{}".format, st.integers(0, layers - 1), st.integers(0, heads - 1))
    site = st.builds("{}.{}".format, place, st.sampled_from("qkv"))
    after = {
        "senders": [data.draw(place)],
        "receivers": data.draw(st.lists(site, min_size=1, max_size=3, unique=True)),
        "position": data.draw(st.sampled_from(["END", "S1", "S2"])),
        "between": data.draw(st.sampled_from(["mlps", "nothing"])),
    }
    compare(model, pairs, "heads", after=after)
