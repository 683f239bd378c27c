"""Arguments of ioi_prompts: what is taken as integers and what is refused by name."""

from __future__ import annotations

import numpy
import pytest
import torch
from gpt2_files import gpt2_tokenizer

from ioi_fast.ioi.dataset import ioi_prompts

FORMS = 'forms must be "mixed14", "all30" or a list of form ids, got '


@pytest.mark.parametrize(
    "forms",
    [
        None,
        5,
        3.5,
        [1.7],
        ["1"],
        [True],
        [None],
        [[1]],
        b"ab",
        {3},
        {3: 1},
        numpy.array([1.5]),
        numpy.array([[1]]),
        torch.tensor(3),
        torch.tensor([[3]]),
    ],
    ids=repr,
)
def test_forms_of_other_types_are_refused(forms: object) -> None:
    with pytest.raises(TypeError) as caught:
        ioi_prompts(gpt2_tokenizer(), n=2, forms=forms)
    assert str(caught.value) == FORMS + repr(forms)


@pytest.mark.parametrize("abc", [[], {}, None, 5])
def test_abc_of_other_types_is_refused(abc: object) -> None:
    with pytest.raises(ValueError, match=r"abc must be one of \['authors', 'distinct'\], got "):
        ioi_prompts(gpt2_tokenizer(), n=2, abc=abc)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"n": 2.0}, ValueError, "n must be an integer of at least 1, got 2.0"),
        ({"n": True}, ValueError, "n must be an integer of at least 1, got True"),
        ({"n": numpy.int64(0)}, ValueError, "n must be an integer of at least 1, got 0"),
        ({"seed": "x"}, TypeError, "seed must be an integer, got 'x'"),
        ({"seed": True}, TypeError, "seed must be an integer, got True"),
        ({"seed": numpy.float64(1)}, TypeError, "seed must be an integer, got "),
    ],
)
def test_n_and_seed_must_be_integers(change: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        ioi_prompts(gpt2_tokenizer(), **({"n": 2} | change))


@pytest.mark.parametrize("kind", [tuple, iter, numpy.array, torch.tensor])
def test_integers_of_numpy_and_torch_are_taken(kind: type) -> None:
    plain = ioi_prompts(gpt2_tokenizer(), 5, 3, [4, 29])
    taken = ioi_prompts(gpt2_tokenizer(), numpy.int64(5), numpy.int32(3), kind([4, 29]))
    assert taken.token_hash() == plain.token_hash()
