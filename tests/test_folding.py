"""Folded and centred weights: the same answers, from weights of which directions can be read."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from compare import assert_close
from small_models import ragged_pairs, tiny_model

from ioi_fast import GPT2, load, path_patch
from ioi_fast.reference.run import plain_run


def exact(model: GPT2) -> GPT2:
    return model.to(dtype=torch.float64)


@pytest.mark.parametrize("settings", [{}, {"tie_word_embeddings": False}, {"n_inner": None}])
def test_logit_differences_and_probabilities_do_not_move(settings: dict) -> None:
    model = exact(tiny_model(seed=3, **settings))
    tokens = ragged_pairs().orig
    own, folded = model(tokens), model.folded()(tokens)
    assert not torch.allclose(own, folded, atol=1e-3), "logits themselves are centred"
    assert_close(own.log_softmax(-1), folded.log_softmax(-1), 1e-9)
    assert_close(own - own[..., :1], folded - folded[..., :1], 1e-9)


def test_effects_of_heads_do_not_move() -> None:
    model, pairs = exact(tiny_model()), ragged_pairs()
    own = path_patch(model, pairs, backend="reference", precision="fp64")
    folded = path_patch(model.folded(), pairs, backend="reference", precision="fp64")
    assert_close(folded.values, own.values, 1e-6)
    fast = path_patch(tiny_model().folded(), pairs, backend="cpu")
    assert_close(fast.values, own.values)


def test_what_is_folded() -> None:
    weights = exact(tiny_model()).folded().weights
    for block in weights.blocks:
        for gain, bias in ((block.ln_1_gain, block.ln_1_bias), (block.ln_2_gain, block.ln_2_bias)):
            assert (gain == 1).all() and not bias.any()
        for rows in (block.w_o, block.b_o, block.w_out, block.b_out):
            assert rows.mean(-1).abs().max() < 1e-12
    assert weights.wte.mean(-1).abs().max() < 1e-12
    assert weights.wpe.mean(-1).abs().max() < 1e-12
    assert weights.unembed.mean(0).abs().max() < 1e-12 and (weights.ln_f_gain == 1).all()


def test_biases_of_values_stay_in_z() -> None:
    """z of both differs by nothing, so that what a head writes holds its b_V."""
    model = exact(tiny_model())
    pairs = ragged_pairs()
    own, folded = (plain_run(one, pairs.orig, pairs.end) for one in (model, model.folded()))
    for layer in range(model.config.n_layer):
        assert_close(folded.used["z", layer], own.used["z", layer], 1e-9)


def test_a_gain_of_zero_keeps_its_bias() -> None:
    model = exact(tiny_model())
    gain = model.weights.ln_f_gain.clone()
    gain[3] = 0.0
    model = GPT2(model.config, replace(model.weights, ln_f_gain=gain), name="zero")
    tokens = ragged_pairs().orig
    own, folded = model(tokens), model.folded()(tokens)
    assert_close(own.log_softmax(-1), folded.log_softmax(-1), 1e-9)


def test_folding_the_bundled_model_leaves_it_as_it_was() -> None:
    model = load("demo")
    before = model.weight_hash()
    folded = model.folded()
    assert folded.tokenizer is model.tokenizer and folded.name == "demo, folded"
    assert model.weight_hash() == before != folded.weight_hash()
    tokens = torch.arange(12)[None]
    own = model(tokens)
    assert_close(own.log_softmax(-1), folded(tokens).log_softmax(-1), 1e-5)
