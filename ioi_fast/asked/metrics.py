"""What is read off the logits at END: one table of metrics, each with its form for differences.

A row says what a metric is of the logits and how it changes with them, without subtracting two
nearly equal numbers: metric(base + δ) − metric(base).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Metric = str | Callable[..., Tensor]
# Tensors of logits that a callable is thought to make.
_TENSORS_OF_A_CALLABLE = 3
# Changes of logits whose exponential is still far from a float's largest number.
_LARGE = 50.0


@dataclass(frozen=True, slots=True)
class OfGap:
    """A metric of the answer's logit less the wrong answer's, [R]: no other logit is made."""

    value: Callable[[Tensor], Tensor]
    change: Callable[[Tensor, Tensor], Tensor]  # of the base's gap and the change of it


@dataclass(frozen=True, slots=True)
class OfLogits:
    """A metric of every logit, [R, V].

    `value` takes the logits, the answers [R] and a function that gives the base's logits; `change`
    the base's logits, their change and the answers. `tensors` as wide as the vocabulary are alive
    at once while rows are compared.
    """

    value: Callable[[Tensor, Tensor, Callable[[], Tensor]], Tensor]
    change: Callable[[Tensor, Tensor, Tensor], Tensor]
    tensors: int


@dataclass(frozen=True, slots=True)
class Row:
    """A metric; `share` says whether its base is a measure of what there is to lose."""

    reads: OfGap | OfLogits
    share: bool


def _pick(values_RV: Tensor, token_R: Tensor) -> Tensor:
    return values_RV.gather(1, token_R[:, None]).squeeze(1)


def _is_right(gap_R: Tensor) -> Tensor:
    return (gap_R > 0).to(gap_R.dtype)


def _prob(logits_RV: Tensor, answer_R: Tensor, _base: Callable) -> Tensor:
    return _pick(logits_RV.log_softmax(-1), answer_R).exp()


def _prob_change(base_RV: Tensor, delta_RV: Tensor, answer_R: Tensor) -> Tensor:
    """−p0·S/(1 + S) with S = Σ p0·(exp(d) − 1), where d is δ less the answer's own δ.

    Only other tokens are in the sum, so that an answer near certain moves as exactly as their
    probabilities do.
    """
    log_p0_RV = base_RV.log_softmax(-1)
    log_p0_R = _pick(log_p0_RV, answer_R)
    d_RV = delta_RV - _pick(delta_RV, answer_R)[:, None]
    S_R = (log_p0_RV.exp() * torch.expm1(d_RV.clamp(max=_LARGE))).sum(-1)
    near_R = -log_p0_R.exp() * S_R / (1 + S_R)
    # Where p grows much S is near −1, and exp(d) may be too large for a float.
    far_R = (log_p0_R - torch.logsumexp(log_p0_RV + d_RV, -1)).exp() - log_p0_R.exp()
    return torch.where((S_R > -0.5) & (d_RV.amax(-1) < _LARGE), near_R, far_R)


def _rank(logits_RV: Tensor, answer_R: Tensor, _base: Callable | None = None) -> Tensor:
    above = logits_RV > _pick(logits_RV, answer_R)[:, None]
    return above.sum(-1).to(logits_RV.dtype)


def _rank_change(base_RV: Tensor, delta_RV: Tensor, answer_R: Tensor) -> Tensor:
    return _rank(base_RV + delta_RV, answer_R) - _rank(base_RV, answer_R)


def _kl(logits_RV: Tensor, _answer: Tensor, base: Callable[[], Tensor]) -> Tensor:
    base_RV = base().log_softmax(-1)
    return (base_RV.exp() * (base_RV - logits_RV.log_softmax(-1))).sum(-1)


def _kl_change(base_RV: Tensor, delta_RV: Tensor, _answer: Tensor) -> Tensor:
    """KL(base ‖ base + δ) = log Σ p0·exp(d) with d = δ − Σ p0·δ."""
    return _log_mean_exp(*_centred(base_RV, delta_RV))


def _centred(base_RV: Tensor, delta_RV: Tensor) -> tuple[Tensor, Tensor]:
    """log p0, and δ less its mean under p0: a shift of all logits changes nothing."""
    log_p0_RV = base_RV.log_softmax(-1)
    return log_p0_RV, delta_RV - (log_p0_RV.exp() * delta_RV).sum(-1, keepdim=True)


def _log_mean_exp(log_p0_RV: Tensor, d_RV: Tensor) -> Tensor:
    """log Σ p0·exp(d) for a d whose mean under p0 is zero: never negative."""
    p0_RV = log_p0_RV.exp()
    # Σ p0·d = 0, so only exp(d) − 1 − d is left, which has its own series where d is small.
    series_RV = d_RV.square() * (0.5 + d_RV * (1 / 6 + d_RV * (1 / 24 + d_RV / 120)))
    grown_RV = torch.expm1(d_RV.clamp(max=_LARGE)) - d_RV
    curved_RV = torch.where(d_RV.abs() < 0.05, series_RV, grown_RV)
    small_R = torch.log1p((p0_RV * curved_RV).sum(-1))
    large_R = torch.logsumexp(log_p0_RV + d_RV, -1)
    return torch.where(d_RV.amax(-1) < _LARGE, small_R, large_R)


# logit_diff: the logit of the answer less that of the wrong answer. prob: the softmax probability
# of the answer. rank: how many tokens have a larger logit than the answer. accuracy: 1 where
# logit_diff is positive. kl: KL(base ‖ row), in nats.
METRICS: dict[str, Row] = {
    "logit_diff": Row(OfGap(lambda gap: gap, lambda base, delta: delta), share=True),
    "prob": Row(OfLogits(_prob, _prob_change, tensors=6), share=True),
    "rank": Row(OfLogits(_rank, _rank_change, tensors=6), share=False),
    "accuracy": Row(
        OfGap(_is_right, lambda base, delta: _is_right(base + delta) - _is_right(base)), share=True
    ),
    "kl": Row(OfLogits(_kl, _kl_change, tensors=9), share=False),
}


def vocabulary_tensors(metric: Metric) -> int:
    """How many tensors as wide as the vocabulary reading a metric takes; 0 for those that read the
    logits of the two answers alone."""
    if not isinstance(metric, str):
        return _TENSORS_OF_A_CALLABLE
    reads = METRICS[metric].reads
    return reads.tensors if isinstance(reads, OfLogits) else 0


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """A metric bound to the answers and to the base logits [N, V] at END of some prompts.

    A callable maps (logits [R, V], prompt [R]) to [R]; what else it reads is bound to it
    (`own_metrics.bound_metric`).
    """

    metric: Metric
    answers: Tensor  # [N]
    wrong_answers: Tensor  # [N]
    base_logits: Tensor  # [N, V]
    prompts: Tensor  # [N] what a callable is told each prompt's index is

    def values(self, logits_RV: Tensor, prompt_R: Tensor) -> Tensor:
        """The metric of each row by its definition, [R]."""
        if not isinstance(self.metric, str):
            values = _checked(self.metric(logits_RV, self.prompts[prompt_R]), len(prompt_R))
            return values.to(logits_RV.dtype)
        reads = METRICS[self.metric].reads
        if isinstance(reads, OfGap):
            return reads.value(self._gap(logits_RV, prompt_R))
        answer_R = self.answers[prompt_R]
        return reads.value(logits_RV, answer_R, lambda: self.base_logits[prompt_R])

    def base(self, together: int | None = None) -> Tensor:
        """The metric of the base run, [N]; so many rows are read at once (default: all)."""
        prompts_N = torch.arange(len(self.answers)).split(together or len(self.answers))
        return torch.cat([self.values(self.base_logits[some], some) for some in prompts_N])

    def change(self, delta_RV: Tensor, prompt_R: Tensor) -> Tensor:
        """metric(base + δ) − metric(base) of each row from the change of its logits, [R]."""
        base_RV = self.base_logits[prompt_R]
        if not isinstance(self.metric, str):
            return self.values(base_RV + delta_RV, prompt_R) - self.values(base_RV, prompt_R)
        reads = METRICS[self.metric].reads
        if isinstance(reads, OfGap):
            return reads.change(self._gap(base_RV, prompt_R), self._gap(delta_RV, prompt_R))
        return reads.change(base_RV, delta_RV, self.answers[prompt_R])

    def _gap(self, logits_RV: Tensor, prompt_R: Tensor) -> Tensor:
        wrong_R = self.wrong_answers[prompt_R]
        return _pick(logits_RV, self.answers[prompt_R]) - _pick(logits_RV, wrong_R)


def _checked(values: object, rows: int) -> Tensor:
    if not isinstance(values, Tensor) or values.shape != (rows,) or values.is_complex():
        tensor = isinstance(values, Tensor)
        came = f"{values.dtype} {list(values.shape)}" if tensor else type(values).__name__
        raise ValueError(f"metric must return real numbers [{rows}], one a row, got {came}")
    return values
