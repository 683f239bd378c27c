"""Sparse, meta, nested and quantised tensors hold no values that can be read: TypeError."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from small_models import ragged_pairs, tiny_model
from torch import Tensor

from ioi_fast import PromptPairs, path_patch
from ioi_fast.outside.dense_tensors import why_not_dense


def quantised(tensor: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(tensor.float(), 1.0, 0, torch.qint32)


def nested(tensor: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.nested.nested_tensor(list(tensor.float().unsqueeze(-1))).long()


OTHERS: dict[str, Callable[[Tensor], Tensor]] = {
    "sparse": Tensor.to_sparse,
    "csr": lambda tensor: torch.atleast_2d(tensor).to_sparse_csr(),
    "meta": lambda tensor: tensor.to("meta"),
    "quantised": quantised,
    "nested": nested,
}


@pytest.mark.parametrize("kind", list(OTHERS))
def test_prompt_pairs_take_dense_tensors_alone(kind: str) -> None:
    make, pairs = OTHERS[kind], ragged_pairs()
    fields = {
        name: getattr(pairs, name)
        for name in ("orig", "new", "answers", "wrong_answers", "forms", "positions")
    }
    for name in ("orig", "new", "answers", "wrong_answers", "forms"):
        with pytest.raises(TypeError, match=f"^{name} must hold integers in a dense tensor, got a"):
            PromptPairs(**{**fields, name: make(fields[name])})
    for name in ("positions", "new_positions"):
        roles = {**pairs.positions, "S2": make(pairs.positions["S2"])}
        with pytest.raises(TypeError, match=rf'^{name}\["S2"\] must hold integers in a dense'):
            PromptPairs(**{**fields, name: roles})
    with pytest.raises(TypeError, match=r"^extra\['dates'\] must be a dense tensor, got a"):
        PromptPairs(**fields, extra={"dates": make(pairs.answers)})
    with pytest.raises(TypeError, match=r"^which must hold integers in a dense tensor, got a"):
        pairs.select(make(torch.tensor([0, 1])))


@pytest.mark.parametrize("kind", list(OTHERS))
def test_a_model_and_a_position_take_dense_tensors_alone(kind: str) -> None:
    make, model, pairs = OTHERS[kind], tiny_model(), ragged_pairs()
    with pytest.raises(TypeError, match=r"^tokens must be .* tensor"):
        model(make(pairs.orig))
    for backend in ("reference", "cpu"):
        with pytest.raises(TypeError, match=r"^position must be a role .* got a"):
            path_patch(model, pairs, ["0.0"], ["1.0.k"], make(pairs.end), backend=backend)


def test_dense_tensors_pass_whatever_their_layout_in_memory() -> None:
    pairs = ragged_pairs()
    assert why_not_dense(pairs.orig.mT) is None and why_not_dense(pairs.orig[:, ::2]) is None
    assert torch.equal(tiny_model()(pairs.orig.mT.contiguous().mT), tiny_model()(pairs.orig))


def test_lists_are_read_on_the_cpu_whatever_the_default_device() -> None:
    with torch.device("meta"):
        pairs = PromptPairs(
            [[5, 3]], [[5, 4]], [3], [4], positions={"END": [1]}, extra={"a": [1.5]}
        )
    assert pairs.orig.tolist() == [[5, 3]] and pairs.extra["a"].tolist() == [1.5]
