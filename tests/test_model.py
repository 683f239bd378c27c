"""The forward pass against transformers on random weights, and what GPT2.random promises."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from checkpoints import (
    assert_same_logits,
    logits_error,
    mean_largest_attention,
    random_tokens,
    true_logits,
)

from ioi_fast.benchmarks.transformers_model import BLOCK_NAMES, as_transformers
from ioi_fast.model.config import GPT2Config
from ioi_fast.model.gpt2 import GPT2
from ioi_fast.model.weights import Block

CONFIG = GPT2Config(vocab_size=53, n_positions=20, n_embd=48, n_layer=3, n_head=3)
FLAGS = {
    "plain": {},
    "untied": {"tie_word_embeddings": False},
    "inverse layer": {"scale_attn_by_inverse_layer_idx": True},
    "unscaled": {"scale_attn_weights": False},
    "both scales off": {"scale_attn_by_inverse_layer_idx": True, "scale_attn_weights": False},
    "upcast": {"reorder_and_upcast_attn": True},
    "erf": {"activation_function": "gelu", "n_inner": 37},
    "relu": {"activation_function": "relu", "layer_norm_epsilon": 1e-2},
    "one head": {"n_head": 1, "n_layer": 1},
    "heads of one": {"n_head": 48},
    "small": {"vocab_size": 101, "n_embd": 768, "n_head": 12, "n_layer": 2},
}


@pytest.mark.parametrize("flags", FLAGS.values(), ids=FLAGS)
def test_random_models_agree_with_transformers(flags: dict) -> None:
    model = GPT2.random(replace(CONFIG, **flags), seed=4)
    tokens = random_tokens(model.config.vocab_size, N=3, T=17)
    logits = model(tokens)
    assert logits.dtype == torch.float32
    assert_same_logits(logits, true_logits(as_transformers(model), tokens))


@pytest.mark.parametrize("flags", FLAGS.values(), ids=FLAGS)
def test_random_attention_is_far_from_uniform(flags: dict) -> None:
    model = GPT2.random(replace(CONFIG, **flags), seed=4)
    tokens = random_tokens(model.config.vocab_size, N=8, T=16)
    assert mean_largest_attention(as_transformers(model), tokens) >= 0.5


def test_random_weights_are_neither_zero_nor_one() -> None:
    weights = GPT2.random(CONFIG, seed=0).weights
    gains = [b.ln_1_gain for b in weights.blocks] + [b.ln_2_gain for b in weights.blocks]
    for gain in [*gains, weights.ln_f_gain]:
        assert (gain - 1).abs().mean() > 0.1
    for tensor in weights.tensors():
        assert tensor.dtype == torch.float32
        assert (tensor != 0).all()


@pytest.mark.parametrize("field", [*BLOCK_NAMES, "wte", "wpe", "ln_f_gain", "ln_f_bias"])
def test_every_tensor_of_a_random_model_matters(field: str) -> None:
    model = GPT2.random(CONFIG, seed=1)
    weights, tokens = model.weights, random_tokens(CONFIG.vocab_size)
    if field in BLOCK_NAMES:
        blocks = tuple(_without(block, field) for block in weights.blocks)
        changed = replace(weights, blocks=blocks)
    else:
        changed = _without(weights, field)
    # What is left out must show a hundred times more clearly than what the promise allows.
    assert logits_error(GPT2(CONFIG, changed)(tokens), model(tokens)) > 1e-2


def _without(holder, field: str):
    tensor = getattr(holder, field)
    neutral = torch.ones_like if field.endswith("gain") else torch.zeros_like
    return replace(holder, **{field: neutral(tensor)})


def test_random_models_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = GPT2.random(CONFIG, seed=7)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    second, other = GPT2.random(CONFIG, seed=7), GPT2.random(CONFIG, seed=8)
    assert first.weight_hash() == second.weight_hash() != other.weight_hash()
    for one, two in zip(first.weights.tensors(), second.weights.tensors(), strict=True):
        assert torch.equal(one, two)
    assert (first.name, first.tokenizer) == ("random-7", None)


def test_a_later_token_changes_nothing_before_it() -> None:
    model = GPT2.random(CONFIG, seed=3)
    tokens = random_tokens(CONFIG.vocab_size, N=2, T=9)
    other = tokens.clone()
    other[:, 6:] = (other[:, 6:] + 1) % CONFIG.vocab_size
    assert torch.equal(model(tokens)[:, :6], model(other)[:, :6])
    assert logits_error(model(other)[:, 6:], model(tokens)[:, 6:]) > 1e-2


def test_a_batch_is_its_prompts_one_by_one() -> None:
    model = GPT2.random(CONFIG, seed=3)
    tokens = random_tokens(CONFIG.vocab_size, N=4, T=CONFIG.n_positions)
    single = torch.cat([model(tokens[n : n + 1]) for n in range(4)])
    assert_same_logits(model(tokens), single, 5e-6)
    assert_same_logits(model(tokens[:, :1]), single[:, :1], 5e-6)


def test_float64_is_the_same_model_more_exactly() -> None:
    model = GPT2.random(CONFIG, seed=5)
    exact, tokens = model.to(dtype=torch.float64), random_tokens(CONFIG.vocab_size)
    assert (exact.dtype, exact.name) == (torch.float64, model.name)
    assert exact.weights.unembed is exact.weights.wte
    assert exact(tokens).dtype == torch.float64
    truth = true_logits(as_transformers(model).double(), tokens)
    assert_same_logits(exact(tokens), truth, 1e-13)
    assert_same_logits(model(tokens), truth)
    assert model.to(dtype=torch.float32, device="cpu") is model


def test_the_weight_hash_names_values_not_their_form() -> None:
    model = GPT2.random(CONFIG, seed=5)
    assert model.to(dtype=torch.float64).weight_hash() == model.weight_hash()
    assert model.to(dtype=torch.float64).weight_hash() == model.weight_hash()  # now computed
    assert model.to(dtype=torch.bfloat16).weight_hash() != model.weight_hash()
    unscaled = GPT2(replace(CONFIG, scale_attn_weights=False), model.weights)
    assert unscaled.weight_hash() != model.weight_hash()


@pytest.mark.parametrize("field", [field.name for field in fields(Block)])
def test_the_weight_hash_sees_every_tensor_of_a_block(field: str) -> None:
    model = GPT2.random(CONFIG, seed=5)
    *others, last = model.weights.blocks
    tensor = getattr(last, field).clone()
    tensor.view(-1)[-1] += 1e-3
    weights = replace(model.weights, blocks=(*others, replace(last, **{field: tensor})))
    assert GPT2(CONFIG, weights).weight_hash() != model.weight_hash()


@pytest.mark.parametrize(
    ("tokens", "error", "message"),
    [
        ([[1, 2]], TypeError, "tokens must be an int64 tensor .* got list"),
        (torch.zeros(1, 2), TypeError, r"got torch.float32 \[1, 2\]"),
        (torch.zeros(1, 2, dtype=torch.int32), TypeError, "got torch.int32"),
        (torch.zeros(2, dtype=torch.int64), TypeError, r"\[N, T\], got torch.int64 \[2\]"),
        (torch.zeros(0, 2, dtype=torch.int64), ValueError, r"N ≥ 1 .* got \[0, 2\]"),
        (torch.zeros(1, 0, dtype=torch.int64), ValueError, r"got \[1, 0\]"),
        (torch.zeros(1, 21, dtype=torch.int64), ValueError, r"T ≤ 20, got \[1, 21\]"),
        (torch.tensor([[0, 53]]), ValueError, "ids from 0 to 52, got 53"),
        (torch.tensor([[0, -1]]), ValueError, "ids from 0 to 52, got -1"),
    ],
)
def test_wrong_tokens_are_refused(tokens: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        GPT2.random(CONFIG)(tokens)


def test_the_comparison_of_logits_fails_where_it_should() -> None:
    truth = torch.tensor([[3.0, -4.0]])
    assert_same_logits(truth + 1e-5, truth, 1e-5)
    with pytest.raises(AssertionError, match="differ by"):
        assert_same_logits(truth + torch.tensor([[0.0, 1e-3]]), truth, 1e-4)
    for broken in (torch.tensor([[3.0, torch.nan]]), torch.tensor([[3.0, torch.inf]])):
        with pytest.raises(AssertionError, match="not finite"):
            assert_same_logits(broken, truth)
    with pytest.raises(AssertionError, match="shape"):
        assert_same_logits(truth[0], truth)
