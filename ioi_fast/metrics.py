"""What is read off the logits at END: the definitions, and their forms for small differences.

Every metric takes rows of logits and the prompt that each row belongs to. The difference forms
give metric(base + δ) − metric(base) without subtracting two nearly equal numbers. What a metric of
the caller's own reads beside the logits comes with the prompts, as `PromptPairs.extra`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ioi_fast.memory.reading import READING_ROWS

Metric = str | Callable[..., Tensor]


def _logit_diff(logits_RV: Tensor, answer_R: Tensor, wrong_R: Tensor) -> Tensor:
    return _pick(logits_RV, answer_R) - _pick(logits_RV, wrong_R)


def _prob(logits_RV: Tensor, answer_R: Tensor, wrong_R: Tensor) -> Tensor:
    return _pick(logits_RV.log_softmax(-1), answer_R).exp()


def _rank(logits_RV: Tensor, answer_R: Tensor, wrong_R: Tensor) -> Tensor:
    above = logits_RV > _pick(logits_RV, answer_R)[:, None]
    return above.sum(-1).to(logits_RV.dtype)


def _accuracy(logits_RV: Tensor, answer_R: Tensor, wrong_R: Tensor) -> Tensor:
    return (_logit_diff(logits_RV, answer_R, wrong_R) > 0).to(logits_RV.dtype)


# "kl" needs the base logits too and is defined in Reading.
_DEFINITIONS = {"logit_diff": _logit_diff, "prob": _prob, "rank": _rank, "accuracy": _accuracy}
METRICS = (*_DEFINITIONS, "kl")
# Changes of logits whose exponential is still far from a float's largest number.
_LARGE = 50.0


def _pick(values_RV: Tensor, token_R: Tensor) -> Tensor:
    return values_RV.gather(1, token_R[:, None]).squeeze(1)


def check_metric(metric: object, extra: Mapping[str, Tensor] | None = None) -> Metric:
    """The metric itself; raises ValueError or TypeError for an unknown one, ValueError for one that
    reads `extra` of prompts that have none."""
    if isinstance(metric, str):
        if metric not in METRICS:
            raise ValueError(
                f"metric must be one of {', '.join(METRICS)} or a callable, got {metric!r}"
            )
        return metric
    if not callable(metric):
        raise TypeError(
            "metric must be a name or a callable (logits, prompt) or (logits, prompt, extra), "
            f"got {metric!r}"
        )
    parameter = _extra_parameter(metric)
    if extra is None and parameter is not None and parameter.needed:
        raise ValueError(
            f"metric takes a third argument ({parameter.name}), the rows of pairs.extra, and "
            "pairs.extra is None"
        )
    return metric


def metric_name(metric: Metric) -> str:
    """The name under which a metric stands in a result."""
    if isinstance(metric, str):
        return metric
    name = getattr(metric, "__name__", repr(metric))
    return f"{name} (a callable)" if name in METRICS else name


def bound_metric(metric: Metric, extra: Mapping[str, Tensor] | None) -> Metric:
    """The metric with the rows of `extra` {name: [N, …]} bound to it if it reads them.

    A callable reads them by its third argument, or by one that is named `extra`, if that has no
    default or None: it is called with (logits [R, V], prompt [R], {name: [R, …]}), the rows of
    these prompts beside the logits. Other defaults stay, and `*args` takes two arguments.
    """
    parameter = None if isinstance(metric, str) or extra is None else _extra_parameter(metric)
    if parameter is None:
        return metric

    def with_rows(logits_RV: Tensor, prompt_R: Tensor) -> Tensor:
        on_host = prompt_R.to("cpu")
        rows = {name: every[on_host].to(logits_RV.device) for name, every in extra.items()}
        if parameter.by_name:
            return metric(logits_RV, prompt_R, **{parameter.name: rows})
        return metric(logits_RV, prompt_R, rows)

    return with_rows


class _Parameter(NamedTuple):
    """How a callable takes the rows of `extra`."""

    name: str
    by_name: bool
    needed: bool


def _extra_parameter(metric: Callable) -> _Parameter | None:
    """The parameter of a callable that takes the rows of `extra`, if it has one."""
    try:
        # A module's own call takes anything.
        own = metric.forward if isinstance(metric, torch.nn.Module) else metric
        parameters = list(inspect.signature(own).parameters.values())
    except (TypeError, ValueError):  # some that are written in C do not say
        return None
    kinds = inspect.Parameter
    by_place = (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)
    by_name = (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)
    for place, one in enumerate(parameters):
        third = place == 2 and one.kind in by_place
        named = place > 1 and one.name == "extra" and one.kind in by_name
        needed = one.default is kinds.empty
        if (third or named) and (needed or one.default is None):
            return _Parameter(one.name, not third, needed)
    return None


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """A metric bound to the answers and to the base logits [N, V] at END of some prompts.

    logit_diff: logit of the answer − logit of the wrong answer. prob: softmax probability of the
    answer. rank: how many tokens have a larger logit than the answer. accuracy: 1 where logit_diff
    is positive. kl: KL(base ‖ row), in nats. A callable maps (logits [R, V], prompt [R]) to [R];
    what else it reads is bound to it (`bound_metric`).
    """

    metric: Metric
    answers: Tensor  # [N]
    wrong_answers: Tensor  # [N]
    base_logits: Tensor  # [N, V]
    prompts: Tensor  # [N] what a callable is told each prompt's index is

    def values(self, logits_RV: Tensor, prompt_R: Tensor) -> Tensor:
        """The metric of each row by its definition, [R]."""
        if self.metric == "kl":
            base_RV = self.base_logits[prompt_R].log_softmax(-1)
            return (base_RV.exp() * (base_RV - logits_RV.log_softmax(-1))).sum(-1)
        if isinstance(self.metric, str):
            define = _DEFINITIONS[self.metric]
            return define(logits_RV, self.answers[prompt_R], self.wrong_answers[prompt_R])
        values = _checked(self.metric(logits_RV, self.prompts[prompt_R]), len(prompt_R))
        return values.to(logits_RV.dtype)

    def base(self) -> Tensor:
        """The metric of the base run, [N]."""
        prompts_N = torch.arange(len(self.answers)).split(READING_ROWS)
        return torch.cat([self.values(self.base_logits[some], some) for some in prompts_N])

    def change(self, delta_RV: Tensor, prompt_R: Tensor) -> Tensor:
        """metric(base + δ) − metric(base) of each row from the change of its logits, [R]."""
        answer_R = self.answers[prompt_R]
        if self.metric == "logit_diff":
            return _logit_diff(delta_RV, answer_R, self.wrong_answers[prompt_R])
        base_RV = self.base_logits[prompt_R]
        if self.metric == "prob":
            return _prob_change(base_RV, delta_RV, answer_R)
        if self.metric == "kl":
            return _kl_change(base_RV, delta_RV)
        return self.values(base_RV + delta_RV, prompt_R) - self.values(base_RV, prompt_R)


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


def _kl_change(base_RV: Tensor, delta_RV: Tensor) -> Tensor:
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


def _checked(values: object, rows: int) -> Tensor:
    if not isinstance(values, Tensor) or values.shape != (rows,) or values.is_complex():
        tensor = isinstance(values, Tensor)
        came = f"{values.dtype} {list(values.shape)}" if tensor else type(values).__name__
        raise ValueError(f"metric must return real numbers [{rows}], one a row, got {came}")
    return values
