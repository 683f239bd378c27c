"""A mean that no prompt has is refused before any work, by every call and every backend."""

from __future__ import annotations

import pytest
import torch
from small_models import tiny_model

from ioi_fast import PromptPairs, ablate, attention, explain, path_patch

MESSAGE = r"no new prompt reaches token 3 \(needed for prompt 0\)"


def short_new() -> PromptPairs:
    """A prompt of four tokens whose new one has two."""
    at = {"END": [3], "S2": [3]}
    in_new = {"END": [1], "S2": [1]}
    return PromptPairs([[1, 2, 3, 4]], [[1, 2]], [1], [2], positions=at, new_positions=in_new)


def never(*arguments: object) -> None:
    raise AssertionError("work was begun")


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_knock_outs(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, pairs = tiny_model(), short_new()
    asked = {"senders": ["0.0"], "knock_out": {"mlp0": "S2"}}
    monkeypatch.setattr("ioi_fast.engine.clean_run.CleanRun.embed", never)
    with pytest.raises(ValueError, match=f"knock_out_source: {MESSAGE}"):
        path_patch(model, pairs, **asked, backend=backend)
    with pytest.raises(ValueError, match=f"knock_out_source: {MESSAGE}"):
        attention(model, pairs, ["0.0"], after=asked, backend=backend)
    with pytest.raises(ValueError, match=f"knock_out_source: {MESSAGE}"):
        explain(path_patch, model, pairs, **asked)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_ablations(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ioi_fast.engine.clean_run.CleanRun.embed", never)
    variants = [{"0.1": "END"}]
    message = r"source: no prompt of mean_pairs reaches token 3"
    with pytest.raises(ValueError, match=message):
        ablate(tiny_model(), short_new(), variants, backend=backend)
    with pytest.raises(ValueError, match=message):
        explain(ablate, tiny_model(), short_new(), variants=variants)


def test_what_is_reached_is_taken() -> None:
    pairs = short_new()
    longer = PromptPairs(pairs.orig, torch.tensor([[5, 6, 7, 8]]), [1], [2], positions={"END": [3]})
    assert ablate(tiny_model(), pairs, [{"0.1": "END"}], mean_pairs=longer).values.any()
    assert path_patch(tiny_model(), pairs, knock_out={"0.1": "S2"}, knock_out_source="zero").shape
