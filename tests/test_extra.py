"""What metrics read beside the logits follows the prompts, and a third argument gets its rows."""

from __future__ import annotations

import functools
import pickle

import numpy
import pytest
import torch
from compare import assert_close
from small_models import ragged_pairs, tiny_model
from torch import Tensor

from ioi_fast import (
    PromptPairs,
    ablate,
    activation_patch,
    explain,
    pair_sweep,
    path_patch,
)
from ioi_fast.asked.own_metrics import bound_metric, check_metric
from ioi_fast.engine.placement import pairs_here
from ioi_fast.ioi.roles import with_roles

BACKENDS = ["reference", "cpu"]
N = 9


def with_extra(**extra: object) -> PromptPairs:
    """Prompts whose metric reads one direction of the vocabulary each."""
    plain = ragged_pairs(N=N)
    weights = torch.randn(N, 53, generator=torch.Generator().manual_seed(3))
    names = ("orig", "new", "answers", "wrong_answers", "positions", "forms")
    fields = {name: getattr(plain, name) for name in names}
    return PromptPairs(**fields, extra={"weights": weights, "year": torch.arange(N), **extra})


def weighted(logits: Tensor, prompt: Tensor, extra: dict[str, Tensor]) -> Tensor:
    """Asks of every row that what it got is that of its prompt."""
    assert logits.shape == extra["weights"].shape and len(prompt) == len(extra["year"])
    return (logits * extra["weights"].to(logits)).sum(-1) + extra["year"]


def closing_over(weights: Tensor):
    return lambda logits, prompt: (logits * weights.to(logits)[prompt]).sum(-1) + prompt


def test_it_is_copied_and_keeps_its_type() -> None:
    years = torch.arange(N, dtype=torch.int16)
    share = numpy.linspace(0, 1, N)[::-1]
    pairs = with_extra(year=years, share=share, flags=[True] * N, listed=[[0.5, 1]] * N)
    years.zero_()
    assert pairs.extra["year"].tolist() == list(range(N))
    kinds = [torch.int16, torch.float64, torch.bool, torch.float32]
    assert [pairs.extra[k].dtype for k in ("year", "share", "flags", "listed")] == kinds
    assert pairs.extra["share"][0] == 1 and pairs.extra["listed"].shape == (N, 2)
    assert "extra=weights, year, share" in repr(pairs) and ragged_pairs().extra is None


def test_it_follows_the_prompts() -> None:
    pairs = with_extra()
    for some in ([4, 0, 4], slice(2, None, 3), torch.tensor([8])):
        chosen = pairs.select(some)
        assert torch.equal(chosen.extra["weights"], pairs.extra["weights"][some])
        assert torch.equal(chosen.extra["year"], torch.arange(N)[some])
    assert pairs.swapped().extra["year"].tolist() == list(range(N))
    assert with_roles(pairs, ["END-1"]).select([3]).extra["year"].tolist() == [3]
    assert pickle.loads(pickle.dumps(pairs)).extra["year"].tolist() == list(range(N))
    # The engine's blocks carry none: metrics read it from the caller's pairs.
    assert pairs_here(pairs, torch.tensor([0, 1])).extra is None
    assert pairs.token_hash() == ragged_pairs(N=N).token_hash()


@pytest.mark.parametrize(
    ("extra", "error", "message"),
    [
        ([1, 2], TypeError, r"extra must be a dict of name -> \[9, …\], got list"),
        ({"a": [1, 2]}, ValueError, r"extra\['a'\] must have one row for each of 9 .* \[2\]"),
        ({"a": 3}, ValueError, r"extra\['a'\] must have one row for each of 9 prompts.* \[\]"),
        ({1: [1] * N}, TypeError, "extra must have texts as names, got 1"),
        ({"": [1] * N}, TypeError, "extra must have texts as names, got ''"),
        ({"a": ["x"] * N}, TypeError, r"extra\['a'\] must be a tensor of numbers, got a list"),
        ({"a": [[1], [1, 2]]}, TypeError, r"extra\['a'\] must be a tensor of numbers, got a list"),
    ],
)
def test_what_is_refused(extra: object, error: type[Exception], message: str) -> None:
    plain = ragged_pairs(N=N)
    fields = {name: getattr(plain, name) for name in ("orig", "new", "answers", "wrong_answers")}
    with pytest.raises(error, match=message):
        PromptPairs(**fields, positions=plain.positions, extra=extra)


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_call_gives_a_metric_the_rows_of_its_prompts(backend: str) -> None:
    model, pairs = tiny_model(), with_extra()
    same = {"backend": backend}
    over = closing_over(pairs.extra["weights"])
    for call, asked in (
        (path_patch, {}),
        (path_patch, {"receivers": ["1.0.q", "2.1.q"]}),
        (activation_patch, {"site": "resid_pre", "position": "each"}),
        (ablate, {"variants": [{"0.1": "all"}, {"mlp1": "END"}]}),
        (pair_sweep, {"inputs": ["v"]}),
    ):
        found = call(model, pairs, **asked, metric=weighted, **same)
        expected = call(model, pairs, **asked, metric=over, **same)
        assert expected.effect.any() and torch.equal(found.effect, expected.effect)
        assert torch.equal(found.base, expected.base)
        assert found.provenance["metric"] == "weighted"


@pytest.mark.parametrize("backend", BACKENDS)
def test_some_prompts_have_their_own_rows(backend: str) -> None:
    """The fault of a metric that closes over rows of all prompts: it reads the first ones'."""
    model, pairs, some = tiny_model(), with_extra(), [7, 2, 5]
    whole = path_patch(model, pairs, metric=weighted, backend=backend)
    found = path_patch(model, pairs.select(some), metric=weighted, backend=backend)
    assert_close(found.values, whole.values[:, some], 1e-5)
    wrong = path_patch(model, pairs.select(some), metric=closing_over(pairs.extra["weights"]))
    assert (wrong.values - whole.values[:, some]).abs().max() > 0.1 * whole.values.abs().max()


def test_blocks_of_prompts_have_their_own_rows() -> None:
    model, pairs = tiny_model(), with_extra()
    asked = {"metric": weighted, "backend": "cpu"}
    whole = path_patch(model, pairs, **asked)
    with pytest.raises(ValueError, match="max_memory must be at least") as refused:
        path_patch(model, pairs, **asked, max_memory=1000)
    least = int(str(refused.value).split("at least ")[1].split()[0])
    plan = explain(path_patch, model, pairs, metric=weighted, max_memory=least)
    assert len(plan.prompt_blocks) > 1
    assert_close(path_patch(model, pairs, **asked, max_memory=least).values, whole.values, 1e-5)


class Module(torch.nn.Module):
    """A metric with a forward of three arguments."""

    def forward(self, logits: Tensor, prompt: Tensor, rows: dict) -> Tensor:
        return weighted(logits, prompt, rows)


def with_a_default(logits, prompt, extra=None):
    return weighted(logits, prompt, extra)


def behind_a_default(logits, prompt, scale=1.0, extra=None):
    return scale * weighted(logits, prompt, extra)


def by_keyword(logits, prompt, *, extra):
    return weighted(logits, prompt, extra)


def by_place(logits, prompt, rows, /):
    return weighted(logits, prompt, rows)


class Called:
    """An object that is called."""

    def __call__(self, logits, prompt, rows):
        return weighted(logits, prompt, rows)


def first(logits, prompt, scale=2.0):
    return scale * logits[:, 0]


@pytest.mark.parametrize(
    "metric",
    [
        weighted,
        with_a_default,
        behind_a_default,
        by_keyword,
        by_place,
        Called(),
        Module(),
        functools.wraps(weighted)(lambda *given: weighted(*given)),
        functools.partial(by_keyword),
    ],
)
def test_which_callables_read_it(metric: object) -> None:
    pairs, logits = with_extra(), torch.randn(3, 53)
    prompt = torch.tensor([4, 4, 8])
    assert check_metric(metric, pairs.extra) is metric
    expected = closing_over(pairs.extra["weights"])(logits, prompt)
    if metric not in (with_a_default, behind_a_default):
        with pytest.raises(
            ValueError, match=r"^metric takes a third argument .* pairs\.extra is N"
        ):
            check_metric(metric, None)
    found = bound_metric(metric, pairs.extra)(logits, prompt)
    assert_close(found, expected, 1e-6)


@pytest.mark.parametrize(
    "metric",
    [
        first,
        lambda *given: first(*given),
        functools.partial(weighted, extra={"weights": 0, "year": 0}),
        lambda logits, prompt, at=(1, 2): logits[:, at[0]],
        "logit_diff",
    ],
)
def test_which_do_not(metric: object) -> None:
    """Other defaults stay what they are, and *args take two."""
    assert check_metric(metric, None) is metric
    assert bound_metric(metric, with_extra().extra) is metric


def test_prompts_without_extra_are_refused_before_anything_runs() -> None:
    for backend in BACKENDS:
        with pytest.raises(ValueError, match=r"^metric takes a third argument \(extra\)"):
            path_patch(tiny_model(), ragged_pairs(), metric=weighted, backend=backend)
    with pytest.raises(ValueError, match=r"^metric takes a third argument"):
        explain(path_patch, tiny_model(), ragged_pairs(), metric=weighted)
