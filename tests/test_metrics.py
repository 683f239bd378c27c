"""Metrics by hand, and their difference forms against the definitions in float64 at every size."""

from __future__ import annotations

import math

import pytest
import torch
from compare import assert_close
from torch import Tensor

from ioi_fast.asked.metrics import METRICS, Reading
from ioi_fast.asked.own_metrics import check_metric, metric_name


def normal(*shape: int, seed: int, size: float = 1.0) -> Tensor:
    return size * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def reading(metric: object, base_logits: Tensor, answers: list, wrong: list, **rest) -> Reading:
    prompts = rest.get("prompts", torch.arange(len(answers)))
    return Reading(metric, torch.tensor(answers), torch.tensor(wrong), base_logits, prompts)


def log(*odds: float) -> list[float]:
    return [math.log(odd) for odd in odds]


# Odds 1 : 2 : 5 : 2, so probabilities are tenths; the second prompt has eighths.
LOGITS = torch.tensor([log(1, 2, 5, 2), log(4, 2, 1, 1)], dtype=torch.float64)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("logit_diff", [math.log(5 / 2), math.log(1 / 4)]),
        ("prob", [0.5, 1 / 8]),
        ("rank", [0.0, 2.0]),
        ("accuracy", [1.0, 0.0]),
        ("kl", [0.0, 0.0]),
    ],
)
def test_metrics_by_hand(metric: str, expected: list[float]) -> None:
    """Answers 2 and 3; wrong answers 1 and 0. Equal logits do not rank above the answer."""
    read = reading(metric, LOGITS, [2, 3], [1, 0])
    assert_close(read.base(), torch.tensor(expected, dtype=torch.float64), 1e-12)


def test_kl_by_hand() -> None:
    """KL of (1/2, 1/4, 1/8, 1/8) from the uniform distribution: log 4 − H = ¼·log 2."""
    read = reading("kl", LOGITS[1:], [0], [1])
    uniform = torch.full((1, 4), 7.0, dtype=torch.float64)
    expected = torch.tensor([0.25 * math.log(2)], dtype=torch.float64)
    assert_close(read.values(uniform, torch.tensor([0])), expected, 1e-12)


def test_rank_counts_only_larger_logits() -> None:
    base = torch.tensor([[1.0, 3.0, 3.0, 2.0]])
    for answer, rank in ((0, 3), (1, 0), (2, 0), (3, 2)):
        assert reading("rank", base, [answer], [0]).base().tolist() == [rank]


def test_accuracy_is_zero_at_a_tie() -> None:
    assert reading("accuracy", torch.tensor([[1.0, 1.0]]), [0], [1]).base().tolist() == [0.0]


def test_rows_read_their_own_prompt() -> None:
    """Rows in any order and number; each is compared with the base of its prompt."""
    base = normal(3, 11, seed=1, size=2).double()
    rows, prompt = normal(7, 11, seed=2, size=2).double(), torch.tensor([2, 0, 0, 1, 2, 2, 1])
    answers, wrong = [4, 0, 9], [3, 10, 2]
    for metric in METRICS:
        read = reading(metric, base, answers, wrong)
        together = read.values(rows, prompt)
        changes = read.change(rows - base[prompt], prompt)
        for row, n in enumerate(prompt.tolist()):
            alone = reading(metric, base[[n]], [answers[n]], [wrong[n]])
            first = torch.tensor([0])
            assert_close(together[[row]], alone.values(rows[[row]], first), 1e-12, what=metric)
            moved = alone.values(rows[[row]], first) - alone.base()
            scale = together.abs().max()
            assert (changes[row] - moved[0]).abs() <= 1e-12 * scale.clamp(min=1), metric


@pytest.mark.parametrize("size", [10.0, 1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-6])
@pytest.mark.parametrize("metric", ["logit_diff", "prob", "kl"])
def test_changes_keep_their_precision_at_every_size(metric: str, size: float) -> None:
    """fp32 against the definition in float64: the error follows the change, not the metric.

    Ten seeds; the scale is the largest change of 64 rows. log Σ of 500 terms costs a few ulp.
    """
    for seed in range(10):
        base = normal(8, 500, seed=seed, size=3)
        delta = normal(64, 500, seed=100 + seed, size=size)
        prompt = torch.arange(64) % 8
        # The likeliest token is the answer, so that the changes are not those of a probability 0.
        answers = base.argmax(1).tolist()
        read = reading(metric, base, answers, [0] * 8)
        truth = definition_in_float64(metric, base, delta, prompt, answers)
        assert_close(read.change(delta, prompt).double(), truth, 2e-6, what=metric)


@pytest.mark.parametrize("size", [3.0, 0.1, 1e-3])
@pytest.mark.parametrize("lead", [5.0, 12.0, 20.0])
def test_an_answer_near_certain_moves_as_exactly_as_the_others(lead: float, size: float) -> None:
    """Its probability is 1 − 1e-2 to 1 − 1e-9, and its change as small."""
    base, delta = normal(8, 30, seed=1), normal(64, 30, seed=2, size=size)
    base[:, 4] += lead
    prompt, answers = torch.arange(64) % 8, [4] * 8
    change = reading("prob", base, answers, [0] * 8).change(delta, prompt)
    old = base.double()[prompt].softmax(-1)
    new = (base.double()[prompt] + delta.double()).softmax(-1)
    others = torch.arange(30) != 4
    truth = -(new - old)[:, others].sum(-1)
    assert_close(change.double(), truth, 1e-5)


def definition_in_float64(
    metric: str, base: Tensor, delta: Tensor, prompt: Tensor, answers: list[int]
) -> Tensor:
    """metric(base + δ) − metric(base); KL, second order in δ, by terms that all are positive."""
    old = base.double()[prompt]
    answer = torch.tensor(answers)[prompt][:, None]
    new = old + delta.double()
    if metric == "logit_diff":
        moved = delta.double()
        return moved.gather(1, answer)[:, 0] - moved[:, 0]
    p, q = old.softmax(-1), new.softmax(-1)
    if metric == "prob":
        return (q - p).gather(1, answer)[:, 0]
    # KL(p‖q) = Σ p·(q/p − 1 − log(q/p)), because Σ q = Σ p.
    ratio = q / p
    return (p * (ratio - 1 - ratio.log())).sum(-1)


EXTREME = {
    "a token from nothing to everything": ([0.0, -200.0, -1.0], [0.0, 400.0, 0.0]),
    "the answer from everything to nothing": ([200.0, 0.0, -1.0], [-400.0, 0.0, 0.0]),
    "a shift of all": ([0.0, 1.0, 2.0], [1000.0, 1000.0, 1000.0]),
    "the same after a large shift": ([0.0, 1.0, 2.0], [100.0, 100.5, 99.0]),
    "large logits that keep their order": ([300.0, 0.0, -300.0], [50.0, -50.0, 0.0]),
    "a rare answer grows, still rare": ([-90.0, 0.0, 0.0], [60.0, 0.5, -0.5]),
    "a rare answer takes over": ([-120.0, 0.0, 0.0], [125.0, 0.0, 0.0]),
    "one of two certain tokens goes": ([50.0, 50.0, -50.0], [-300.0, 0.0, 0.0]),
}


@pytest.mark.parametrize("name", list(EXTREME))
@pytest.mark.parametrize("metric", ["prob", "kl"])
def test_changes_at_extreme_logits(metric: str, name: str) -> None:
    base, delta = (torch.tensor([row]) for row in EXTREME[name])
    first = torch.tensor([0])
    change = reading(metric, base, [0], [1]).change(delta, first)
    exact = reading(metric, base.double(), [0], [1])
    truth = exact.values((base + delta).double(), first) - exact.base()
    assert change.isfinite().all()
    # Logits of 1000 are whole 6e-5 apart in fp32; of 400, 3e-5.
    assert (change - truth).abs() <= 2e-4 * truth.abs() + 1e-7, (change, truth)


@pytest.mark.parametrize("metric", METRICS)
def test_no_change_is_exactly_none(metric: str) -> None:
    base = normal(3, 11, seed=3, size=4)
    read = reading(metric, base, [1, 2, 3], [4, 5, 6])
    prompt = torch.tensor([0, 1, 2, 2])
    assert not read.change(torch.zeros(4, 11), prompt).any()


def test_a_callable_sees_logits_and_the_callers_prompt_index() -> None:
    seen = []

    def second(logits: Tensor, prompt: Tensor) -> Tensor:
        seen.append(prompt.tolist())
        return logits[:, 1] * 10 ** prompt.to(logits.dtype)

    base = torch.tensor([[0.0, 1.0], [0.0, 2.0]])
    read = reading(second, base, [0, 0], [1, 1], prompts=torch.tensor([3, 1]))
    assert read.base().tolist() == [1000.0, 20.0]
    rows, prompt = torch.tensor([[0.0, 5.0], [0.0, 1.5]]), torch.tensor([1, 0])
    assert read.values(rows, prompt).tolist() == [50.0, 1500.0]
    assert read.change(rows - base[prompt], prompt).tolist() == [30.0, 500.0]
    assert seen == [[3, 1], [1, 3], [1, 3], [1, 3]]


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float16, torch.float64])
def test_a_callable_may_return_numbers_of_any_kind(dtype: torch.dtype) -> None:
    base, delta = torch.tensor([[0.0, 1.0]]), torch.tensor([[2.0, 0.0]])
    read = reading(lambda logits, prompt: (logits[:, 0] > 1).to(dtype), base, [0], [1])
    assert read.change(delta, torch.tensor([0])).tolist() == [1.0]
    assert read.base().dtype == torch.float32


@pytest.mark.parametrize(
    ("returned", "came"),
    [
        (lambda logits: logits, r"\[2, 3\]"),
        (lambda logits: logits.mean(), r"\[\]"),
        (lambda logits: logits[:1, 0], r"\[1\]"),
        (lambda logits: logits[:, :1], r"\[2, 1\]"),
        (lambda logits: logits[:, 0].tolist(), "list"),
        (lambda logits: None, "NoneType"),
        (lambda logits: logits[:, 0].to(torch.complex64), "complex64"),
    ],
)
def test_a_callable_must_return_one_number_a_row(returned, came: str) -> None:
    read = reading(lambda logits, prompt: returned(logits), torch.zeros(2, 3), [0, 0], [1, 1])
    with pytest.raises(ValueError, match=rf"metric must return .*\[2\].*got .*{came}"):
        read.base()


def test_metrics_are_checked_and_named() -> None:
    def mine(logits: Tensor, prompt: Tensor) -> Tensor:
        return logits[:, 0]

    assert [check_metric(name) for name in METRICS] == list(METRICS)
    assert check_metric(mine) is mine and metric_name(mine) == "mine"
    assert metric_name("kl") == "kl"
    with pytest.raises(ValueError, match=r"metric must be one of logit_diff, .*kl or a callable"):
        check_metric("logit-diff")
    for wrong in (None, 3, ["kl"]):
        with pytest.raises(TypeError, match="metric must be a name or a callable"):
            check_metric(wrong)
