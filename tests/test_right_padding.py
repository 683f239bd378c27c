"""Prompts that are read at their padding are refused; ends of text elsewhere are not."""

from __future__ import annotations

import pytest
import torch
from small_models import tiny_model
from unlike_lengths import GPT2_EOS, behind, pair, texts

from ioi_fast import PromptPairs, path_patch


@pytest.mark.parametrize(
    ("runs", "prompt"), [((3, 0, 1), 0), ((0, 1, 0), 1), ((2, 2, 2), 0), ((0, 0, 7), 2)]
)
@pytest.mark.parametrize("field", ["orig", "new", "both"])
def test_one_end_for_prompts_of_several_lengths(runs, prompt, field) -> None:
    orig, new = texts(3, 10), texts(3, 10, seed=1)
    if field != "new":
        orig = behind(orig, *runs)
    if field != "orig":
        new = behind(new, *runs)
    named = "new" if field == "new" else "orig"
    times = (
        rf"{named} must not be read at padding: .* prompt {prompt} has {max(runs)} times .*50256"
    )
    with pytest.raises(ValueError, match=times):
        pair(orig, new)


def test_new_prompts_filled_up_to_the_width_of_orig() -> None:
    """Their own END lies further in front, which new_positions say."""
    orig, new = texts(4, 10), behind(texts(4, 10, seed=1), 1, 1, 1, 1)
    with pytest.raises(ValueError, match=r"new must not be read at padding: .* give new_positions"):
        pair(orig, new)
    roles = {"positions": {"END": [9] * 4}, "new_positions": {"END": [8] * 4}}
    pairs = PromptPairs(orig, new, [5] * 4, [6] * 4, **roles)
    assert pairs.new.tolist() == new[:, :9].tolist()


def test_the_models_own_end_of_text_is_known_at_a_call() -> None:
    orig = behind(texts(3, 10).clamp(max=51), 2, 0, 0, padding=52)
    pairs = pair(orig, orig.flip(0))
    path_patch(tiny_model(), pairs, ["0.0"])
    for backend in ("reference", "cpu"):
        with pytest.raises(ValueError, match=r"pairs\.orig must not be read at padding: .* id 52"):
            path_patch(tiny_model(eos_token_id=52), pairs, ["0.0"], backend=backend)


@pytest.mark.parametrize("end", [8, 9])
def test_ends_of_text_elsewhere_are_no_padding(end) -> None:
    """Behind END, within a text, and one that ends every prompt."""
    tokens = texts(3, 10)
    tokens[:, 9] = tokens[1, 4:6] = GPT2_EOS
    ends = {"END": [end] * 3}
    pairs = PromptPairs(tokens, tokens.flip(0), [5] * 3, [6] * 3, positions=ends)
    assert pairs.orig.tolist() == tokens[:, : end + 1].tolist()


def test_prompts_of_nothing_but_ends_of_text() -> None:
    """An empty text behind its BOS, or one that says nothing as long as the other."""
    orig, nothing = texts(2, 5), torch.full((2, 5), GPT2_EOS)
    assert pair(orig, nothing).new.tolist() == nothing.tolist()
    assert pair(nothing[:, :1], nothing[:, :1]).end.tolist() == [0, 0]
