"""Prompts of many lengths in several blocks: a block's own longest prompt may be shorter."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from compare import assert_close, assert_exact, assert_sweep
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import tiny_model
from torch import Tensor

from ioi_fast import GPT2, Circuit, PromptPairs, ablate, activation_patch, attention, path_patch
from ioi_fast.asked.sources import SOURCES
from ioi_fast.plan.memory.room import BESIDE

TRUE = {"backend": "reference", "precision": "fp64"}
MODEL = tiny_model(n_positions=64)


def prompts(ends: list[int], roles: dict | None = None, forms: list[int] | None = None):
    """Prompts that end at these tokens, all of whose tokens may differ."""
    generator = torch.Generator().manual_seed(0)
    orig, new = (
        torch.randint(53, (len(ends), max(ends) + 2), generator=generator) for _ in range(2)
    )
    answers = orig[:, 0]
    positions = {"END": ends, "A": [min(end, 3) for end in ends], **(roles or {})}
    return PromptPairs(orig, new, answers, (answers + 1) % 53, positions=positions, forms=forms)


def of_many_lengths(forms: bool = True) -> PromptPairs:
    """Sixteen prompts that make more than one block of 512 tokens, the shortest among the last."""
    ends = [58] * 7 + [20] + [59] * 8
    return prompts(ends, forms=[n % 2 for n in range(16)] if forms else None)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("base", ["model", Circuit({"1.0": "END", "0.1": "A"})], ids=str)
def test_ablations(base: object, source: str) -> None:
    pairs, variants = of_many_lengths(), [{"0.1": "all"}, {"0.1": "A", "mlp1": "END"}]
    truth = ablate(MODEL, pairs, variants, source, base, **TRUE)
    assert_sweep(ablate(MODEL, pairs, variants, source, base).values, truth.values)


def test_activation_patches() -> None:
    pairs = of_many_lengths()
    for site in ("z", "k", "resid_mid"):
        truth = activation_patch(MODEL, pairs, site, "A", **TRUE)
        assert_sweep(activation_patch(MODEL, pairs, site, "A").values, truth.values)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    "ends", [[5, 3, 7, 7], [7, 5, 3, 5], [6, 3, 7, 7, 2]], ids=lambda ends: "-".join(map(str, ends))
)
def test_knock_outs_of_prompts_that_the_patch_does_not_reach(ends: list, source: str) -> None:
    """A role behind some prompts' reach: these make a block of their own."""
    role = [min(pair) for pair in zip(ends, [5, 3, 1, 2, 2][: len(ends)], strict=True)]
    pairs = prompts(ends, {"B": role}, forms=[0] * len(ends))
    for receivers in ("logits", ["1.0.q", "2.1.v"]):
        asked = {"receivers": receivers, "position": "B", "knock_out": {"0.1": "END"}}
        asked["knock_out_source"] = source
        truth = path_patch(MODEL, pairs, **asked, **TRUE)
        assert_sweep(path_patch(MODEL, pairs, **asked).values, truth.values)
        after = {"senders": ["0.0"], **asked}
        same_patterns(pairs, after=after)


@pytest.mark.parametrize("position", ["A", "END", 5, None])
def test_attention(position: object) -> None:
    for pairs in (of_many_lengths(), prompts([6, 3, 7, 7])):
        for receivers in ("logits", ["1.0.q"]):
            after = {"senders": ["0.0"], "receivers": receivers, "position": position}
            same_patterns(pairs, after=after)
        same_patterns(pairs, run="new")


def same_patterns(pairs: PromptPairs, **asked: object) -> None:
    truth = attention(MODEL, pairs, ["0.1", "1.0", "2.2"], **asked, **TRUE)
    fast = attention(MODEL, pairs, ["0.1", "1.0", "2.2"], **asked, backend="cpu")
    live_NT = torch.arange(truth.shape[2]) <= pairs.end[:, None]
    assert_close(fast[:, live_NT], truth[:, live_NT], 1e-5)


@settings(max_examples=25)
@given(
    ends=st.lists(st.integers(3, 30), min_size=2, max_size=12),
    budget=st.integers(400_000, 3_000_000),
    source=st.sampled_from(list(SOURCES)),
)
def test_any_budget(ends: list[int], budget: int, source: str) -> None:
    pairs = prompts(ends, forms=[n % 2 for n in range(len(ends))])
    variants = [{"0.0": "all"}, {"1.1": "A"}, {"mlp0": "END", "2.0": "END"}]

    def ablated(model: GPT2, **settings) -> Tensor:
        return ablate(model, pairs, variants, source, **settings).values

    def patched(model: GPT2, **settings) -> Tensor:
        return path_patch(model, pairs, **asked, **settings).values

    asked = {"senders": ["0.1", "mlp0", "1.2"], "receivers": ["2.0.q", "1.0.k"], "position": "A"}
    asked |= {"knock_out": {"0.2": "all", "mlp1": "A"}, "knock_out_source": source}
    for call in (ablated, patched):
        true = partial(call, **TRUE)
        assert_exact(call(MODEL, max_memory=BESIDE + budget), true(MODEL), MODEL, true)
