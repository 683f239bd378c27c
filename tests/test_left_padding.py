"""Padding in front of prompts is refused; texts that begin alike are not."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import ragged_pairs, tiny_model
from torch import Tensor
from unlike_lengths import in_front, pair, texts

from ioi_fast import PromptPairs, ioi_prompts, load, path_patch
from ioi_fast.asked.left_padding import GPT2_EOS, check_not_padded_in_front


def right_aligned(lengths: list[int], padding: int, bos: bool = False) -> Tensor:
    """Prompts of different tokens, padded in front to one width, behind a BOS of it if asked."""
    width = max(lengths) + bos
    rows = [
        [padding] * (width - length) + [100 * row + place for place in range(length)]
        for row, length in enumerate(lengths, 1)
    ]
    return torch.tensor(rows)


def check(tokens: Tensor, **more: object) -> None:
    check_not_padded_in_front(
        {"orig": (tokens, torch.full((len(tokens),), tokens.shape[1] - 1))}, **more
    )


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("lengths", [[5, 4], [6, 4, 4], [9, 8, 7, 2]])
def test_gpt2s_own_end_of_text_in_front_of_some_prompts(lengths: list[int], bos: bool) -> None:
    """One token is enough, and so is one more than the BOS that every prompt has."""
    with pytest.raises(ValueError, match=r"orig must not be padded in front: .* behind END"):
        check(right_aligned(lengths, GPT2_EOS, bos))


@pytest.mark.parametrize("padding", [0, 7000])
@pytest.mark.parametrize("lengths", [[12, 9], [8, 7, 6, 5], [12, 4, 12, 12], [15] * 40 + [11, 13]])
def test_any_id_that_is_nowhere_else(lengths: list[int], padding: int) -> None:
    with pytest.raises(ValueError, match=f"begins with .* times the id {padding}, prompt .* none"):
        check(right_aligned(lengths, padding))


def test_the_message_says_which_prompts_and_what_to_do() -> None:
    tokens = right_aligned([6, 2], GPT2_EOS)
    roles = {"END": [5, 5]}
    for name, given_ in (("orig", (tokens, tokens.flip(1))), ("new", (tokens.flip(1), tokens))):
        expected = (
            f"{name} must not be padded in front: prompt 1 begins with 4 times the id 50256, "
            "prompt 0 with none. Padding stands behind END: pad on the right"
        )
        with pytest.raises(ValueError, match=re.escape(expected)):
            PromptPairs(*given_, [1, 1], [2, 2], positions=roles)


@pytest.mark.parametrize(
    "rows",
    [
        [[5, 5, 6, 7], [1, 2, 3, 4]],  # the the cat
        [[5, 5, 5, 7], [1, 2, 5, 4]],  # the same word further on
        [[5, 5, 5, 6], [5, 5, 5, 7]],  # all prompts alike
        [[5, 5, 5, 5], [1, 2, 3, 4]],  # one word and nothing else
        [[5, 1, 2, 3], [5, 6, 7, 8], [9, 1, 2, 3]],
        [[GPT2_EOS, 1, 2, 3], [GPT2_EOS, 6, 7, 8]],  # a BOS
    ],
)
def test_texts_that_begin_alike_are_no_padding(rows: list[list[int]]) -> None:
    check(torch.tensor(rows))


@settings(max_examples=300)
@given(
    seed=st.integers(0, 10**6),
    vocabulary=st.sampled_from([3, 8, 53, 400]),
    N=st.integers(1, 9),
    T=st.integers(1, 9),
)
def test_random_tokens_are_no_padding(seed: int, vocabulary: int, N: int, T: int) -> None:
    check(torch.randint(vocabulary, (N, T), generator=torch.Generator().manual_seed(seed)))


def test_padding_behind_end_is_not_looked_at() -> None:
    tokens = torch.tensor([[5, GPT2_EOS, GPT2_EOS, GPT2_EOS], [1, 2, 3, GPT2_EOS]])
    check_not_padded_in_front({"orig": (tokens, torch.tensor([0, 2]))})


def test_the_models_own_end_of_text_is_known_at_a_call() -> None:
    """One of it, in front of one prompt; of a model without one the same tokens are text."""
    pairs = ragged_pairs()
    orig = pairs.orig.clone()
    orig[1, 0] = 52
    orig[[0, 2, 3], 0] = 3
    fields = ("new", "answers", "wrong_answers", "positions")
    padded = PromptPairs(orig, **{name: getattr(pairs, name) for name in fields})
    path_patch(tiny_model(), padded, ["0.0"])
    for backend in ("reference", "cpu"):
        with pytest.raises(ValueError, match=r"pairs\.orig must not be padded in front: prompt 1 "):
            path_patch(tiny_model(eos_token_id=52), padded, ["0.0"], backend=backend)


def test_prompts_of_the_bundled_tokenizer_padded_in_front() -> None:
    """What a tokenizer with padding on the left makes of prompts; with it on the right they run."""
    model = load("demo")
    pairs = ioi_prompts(model.tokenizer, n=12, seed=0, forms="all30", prepend_bos=True)
    width = pairs.orig.shape[1]
    assert len(pairs.end.unique()) > 1
    path_patch(model, pairs, ["0.0"])

    def shifted(tokens: Tensor) -> Tensor:
        filled = torch.full_like(tokens, model.config.eos_token_id)
        for row, end in enumerate(pairs.end.tolist()):
            filled[row, width - 1 - end :] = tokens[row, : end + 1]
        return filled

    positions = {role: at + width - 1 - pairs.end for role, at in pairs.positions.items()}
    with pytest.raises(ValueError, match="must not be padded in front"):
        padded = PromptPairs(
            shifted(pairs.orig),
            shifted(pairs.new),
            pairs.answers,
            pairs.wrong_answers,
            positions=positions,
        )
        path_patch(model, padded, ["0.0"])


def test_some_of_the_prompts_are_prompts_too() -> None:
    """Blocks of a call are parts of its prompts, and parts of what was taken are taken."""
    tokens = torch.tensor([[5, 5, 5, 6, 7], [1, 2, 3, 4, 8], [9, 10, 11, 12, 5]])
    pairs = PromptPairs(tokens, tokens.flip(1), [1] * 3, [2] * 3, positions={"END": [4] * 3})
    assert pairs.select([0, 1]).orig.tolist() == tokens[:2].tolist()
    assert pairs.swapped().select([1]).new.tolist() == tokens[1:2].tolist()


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("runs", [(2, 0), (1, 0), (0, 2), (0, 1)])
def test_one_field_is_padded_to_the_width_of_the_other(n, runs) -> None:
    """Every row of the shorter field has the same run then, the other field has none."""
    sides = [in_front(texts(n, 10, seed=seed), *([run] * n)) for seed, run in enumerate(runs)]
    padded, other = ("orig", "new") if runs[0] else ("new", "orig")
    expected = f"{padded} must .* prompt 0 begins with {max(runs)} times .* 0 of {other} with none"
    with pytest.raises(ValueError, match=expected):
        pair(*sides)


def test_both_fields_are_padded_unlike() -> None:
    sides = [in_front(texts(4, 10, seed=seed), *([run] * 4)) for seed, run in enumerate((1, 3))]
    with pytest.raises(ValueError, match=r"new must .* with 3 times .* prompt 0 of orig with 1\."):
        pair(*sides)
    bos = [in_front(texts(4, 10, seed=seed), 1, 1, 1, 1) for seed in (0, 1)]
    assert pair(*bos).orig.tolist() == bos[0].tolist()


def test_the_models_own_end_of_text_in_front_of_one_field() -> None:
    orig, new = texts(3, 10, seed=2).clamp(max=51), texts(3, 10, seed=3).clamp(max=51)
    pairs = pair(in_front(orig, 1, 1, 1, padding=52), new)
    path_patch(tiny_model(), pairs, ["0.0"])
    with pytest.raises(ValueError, match=r"pairs\.orig must not .* prompt 0 of pairs\.new with no"):
        path_patch(tiny_model(eos_token_id=52), pairs, ["0.0"])


@pytest.mark.parametrize("padding", [0, 1, 58, 50257])
@pytest.mark.parametrize("new", ["alike", "padded", "random"])
@pytest.mark.parametrize("seed", range(3))
def test_a_few_of_an_id_at_either_end_of_the_vocabulary(padding, new, seed) -> None:
    orig, other = (texts(4, 10, seed=2 * seed + side) for side in (0, 1))
    orig = in_front(orig, 2, 1, 0, 0, padding=padding)
    other = {
        "alike": torch.cat([orig[:, :5], other[:, 5:]], 1),
        "padded": in_front(other, 2, 1, 0, 0, padding=padding),
        "random": other,
    }[new]
    with pytest.raises(ValueError, match=f"prompt 0 begins with 2 times the id {padding}, prompt"):
        pair(orig, other)


@pytest.mark.parametrize("padding", [0, 1, 30, 58, 50257])
def test_two_of_any_id_in_front_of_most_prompts(padding) -> None:
    orig = in_front(texts(8, 10), *([2] * 7), 0, padding=padding)
    with pytest.raises(ValueError, match=f"begins with 2 times the id {padding}, prompt 7 with no"):
        pair(orig, torch.cat([orig[:, :5], texts(8, 10, seed=1)[:, 5:]], 1))


def test_texts_that_say_their_first_word_twice() -> None:
    """The id stands nowhere else, but other prompts begin twice with other ids."""
    tokens = texts(12, 8)
    tokens[:, 1] = tokens[:, 0] = torch.tensor([60, 60, 60, 60, 61, 61, 61, 61, 62, 62, 62, 62])
    check(tokens)
    one = texts(60, 12)
    one[0, :2] = 60  # a single prompt does
    check(one)
