"""What a call gives back: values, their mean and standard error, and where they came from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import NamedTuple

import torch
from torch import Tensor

from ioi_fast.asked.metrics import METRICS, Metric
from ioi_fast.asked.own_metrics import metric_name
from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.model.gpt2 import GPT2


class Ranked(NamedTuple):
    """One row of a ranking: a sender (or variant, or place), its effect and its standard error."""

    sender: str
    effect: float
    stderr: float

    @property
    def clear(self) -> bool:
        """Whether the effect is more than two standard errors from zero; False where the error is
        not known, as of a single prompt."""
        return is_clear(self.effect, self.stderr)


def is_clear(effect: float, stderr: float) -> bool:
    """Whether an effect is more than two standard errors from zero."""
    return abs(effect) > 2 * stderr


def near_zero(base: Tensor) -> bool:
    """Whether the mean of a base is too near zero, beside its spread, to show shares of it."""
    mean, spread = abs(float(base.double().mean())), float(base.double().abs().mean())
    return mean < 1e-3 * max(spread, 1e-9) or mean < 1e-6


def relative(effect: Tensor, base: Tensor, provenance: Mapping[str, object]) -> Tensor | None:
    """Effects as a share of |mean base metric|, None for metrics that have none."""
    named = METRICS.get(str(provenance["metric"]))
    if named is not None and not named.share:
        return None
    return (effect.double() / base.double().mean().abs()).float()


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """Effects of interventions: `values` = metric(patched) − metric(base), prompts last.

    values [..., N] and base [N] are float32 on the CPU; `senders` (or variants, or places) labels
    the entries of `effect` in row-major order.
    """

    values: Tensor
    base: Tensor
    senders: tuple[str, ...]
    shape: tuple[int, ...]
    backend: str
    precision: str
    provenance: dict[str, object]

    @property
    def effect(self) -> Tensor:
        """Mean of the values over prompts, [L, H] for all heads, [S] for a list."""
        return self._by_prompt.double().mean(-1).float()

    @property
    def stderr(self) -> Tensor:
        """Standard error of `effect`; NaN for a single prompt."""
        N = self.base.shape[0]
        if N == 1:
            return torch.full(self.shape, math.nan, dtype=torch.float32, device="cpu")
        return (self._by_prompt.double().std(-1) / math.sqrt(N)).float()

    @property
    def relative(self) -> Tensor | None:
        """`effect` as a share of |mean base metric|, (F_patched − F_base)/|F_base| (section 2);
        None for kl and rank, which have no share."""
        return relative(self.effect, self.base, self.provenance)

    @property
    def _by_prompt(self) -> Tensor:
        return self.values.view(*self.shape, self.base.shape[0])

    def ranking(self) -> list[Ranked]:
        """(sender, effect, standard error), the largest |effect| first; the `clear` of each says
        whether it is more than two standard errors from zero."""
        columns = (self.senders, self.effect.flatten().tolist(), self.stderr.flatten().tolist())
        rows = [Ranked(*row) for row in zip(*columns, strict=True)]
        return sorted(rows, key=lambda row: -abs(row.effect))

    def to_dict(self) -> dict[str, object]:
        """Everything as plain lists and strings, ready for JSON; None for what is not finite."""
        return {
            "senders": list(self.senders),
            "effect": plain(self.effect.tolist()),
            "stderr": plain(self.stderr.tolist()) if self.base.shape[0] > 1 else None,
            "relative": None if self.relative is None else plain(self.relative.tolist()),
            "values": plain(self.values.tolist()),
            "base": plain(self.base.tolist()),
            "backend": self.backend,
            "precision": self.precision,
            "provenance": self.provenance,
        }

    def __repr__(self) -> str:
        return (
            f"Result(effect {list(self.shape)}, {self.base.shape[0]} prompts, "
            f"mean base {float(self.base.double().mean()):.4g}, {self.backend}, {self.precision})"
        )


def plain(numbers: list | float) -> list | float | None:
    """Nested lists of numbers with None for NaN and infinity, which JSON does not have."""
    if isinstance(numbers, list):
        return [plain(number) for number in numbers]
    return numbers if math.isfinite(numbers) else None


def provenance(
    model: GPT2, pairs: PromptPairs, metric: Metric, definition: dict[str, object]
) -> dict[str, object]:
    """Where a result came from: weights and token hashes, definition, direction, versions."""
    return {
        "model": model.name,
        "weight_hash": model.weight_hash(),
        "token_hash": pairs.token_hash(),
        "prompts": len(pairs),
        "direction": pairs.direction,
        "metric": metric_name(metric),
        "definition": definition,
        "threads": torch.get_num_threads(),
        "device": str(model.device),
        "versions": {"ioi_fast": version("ioi_fast"), "torch": torch.__version__},
    }
