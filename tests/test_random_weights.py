"""GPT2.random: a config that is none and seeds that torch does not take are refused by name."""

from __future__ import annotations

import re

import numpy
import pytest
import torch
from small_models import TINY

from ioi_fast import GPT2, GPT2Config


@pytest.mark.parametrize("config", [5, "gpt2", [1], {"n_layer": 2}, GPT2Config])
def test_what_is_no_config_is_refused(config: object) -> None:
    with pytest.raises(TypeError, match=re.escape(f"config must be a GPT2Config, got {config!r}")):
        GPT2.random(config)


@pytest.mark.parametrize("seed", ["x", None, 1.5, True, [1]])
def test_a_seed_must_be_an_integer(seed: object) -> None:
    with pytest.raises(TypeError, match=re.escape(f"seed must be an integer, got {seed!r}")):
        GPT2.random(TINY, seed=seed)


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1, 10**30])
def test_a_seed_must_fit_torch(seed: int) -> None:
    with pytest.raises(ValueError, match=rf"seed must be from .* got {seed}"):
        GPT2.random(TINY, seed=seed)


@pytest.mark.parametrize("kind", [numpy.int64, numpy.uint8, torch.tensor])
def test_integers_of_numpy_and_torch_are_seeds(kind: type) -> None:
    assert GPT2.random(TINY, seed=kind(7)).weight_hash() == GPT2.random(TINY, seed=7).weight_hash()
    assert GPT2.random(TINY, seed=-(2**63)).weights.wte.isfinite().all()
