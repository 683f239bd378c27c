"""Metrics as a call is given them: names of the table, or callables of the caller's own.

What a callable reads beside the logits comes with the prompts, as `PromptPairs.extra`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ioi_fast.asked.metrics import METRICS, Metric


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
