"""The measurements of the demo: behaviour, two sweeps, attention, and fast against slow."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.calls.attention import attention
from ioi_fast.calls.path_patch import path_patch
from ioi_fast.ioi.behaviour import Score, score
from ioi_fast.model.gpt2 import GPT2
from ioi_fast.results.promised_accuracy import PROMISED, sweep_error
from ioi_fast.results.result import Result

# Movers whose queries are traced back, and heads shown behind them.
_MOVERS = 3
_BEHIND = 4


@dataclass(frozen=True, slots=True)
class Check:
    """Some senders of the fast sweep, rebuilt one at a time by the reference in float64."""

    senders: tuple[str, ...]
    fast: Tensor  # [S] effects
    slow: Tensor  # [S]
    error: float
    allowed: float
    fast_seconds: float  # of the whole sweep
    fast_senders: int
    slow_seconds: float  # of these senders


@dataclass(frozen=True, slots=True)
class Study:
    """Everything that the demo shows."""

    model: GPT2
    pairs: PromptPairs
    score: Score
    to_logits: Result
    movers: tuple[str, ...]
    to_queries: Result | None  # None when no head moves the answer
    behind: tuple[str, ...]
    patterns: Tensor  # [S, N, T, T] of movers and the heads behind them
    check: Check

    @property
    def heads(self) -> tuple[str, ...]:
        """The heads whose patterns are kept."""
        return self.movers + self.behind

    @property
    def agrees(self) -> bool:
        """Whether the fast answer equals the slow one within the promise."""
        return self.check.error <= self.check.allowed

    @property
    def verdict(self) -> str:
        """The check in one line."""
        found = self.check
        if self.to_logits.backend == "reference":
            return (
                f"{found.fast_senders} senders in {found.fast_seconds:.2f} s on the reference "
                "backend, which is the definition: nothing fast ran, so nothing was compared"
            )
        word = "fast = slow" if self.agrees else "FAST AND SLOW DIFFER"
        return (
            f"{word}: error {found.error:.1e} (allowed {found.allowed:.0e}); "
            f"{found.fast_senders} senders in {found.fast_seconds:.2f} s ({self.to_logits.backend})"
            f", {len(found.senders)} of them by the reference in {found.slow_seconds:.2f} s"
        )


def run_study(
    model: GPT2,
    pairs: PromptPairs,
    *,
    checks: int,
    seed: int,
    backend: str,
    precision: str,
    threads: int | None,
    progress: bool,
) -> Study:
    """Measures everything; the time of the fast sweep is that of its second run."""
    running = {"threads": threads, "progress": progress}
    # The first run packs the weights, once per model.
    path_patch(model, pairs, backend=backend, precision=precision, **running)
    begun = time.perf_counter()
    to_logits = path_patch(model, pairs, backend=backend, precision=precision, **running)
    fast_seconds = time.perf_counter() - begun
    movers = _strongest(to_logits, _MOVERS, lowering=True)
    to_queries, behind = None, ()
    if movers:
        queries = [f"{head}.q" for head in movers]
        to_queries = path_patch(
            model, pairs, "heads", queries, backend=backend, precision=precision, **running
        )
        behind = tuple(h for h in _strongest(to_queries, _BEHIND) if h not in movers)
    patterns = torch.empty(0)
    if movers:
        patterns = attention(model, pairs, list(movers + behind))
    return Study(
        model=model,
        pairs=pairs,
        score=score(model, pairs),
        to_logits=to_logits,
        movers=movers,
        to_queries=to_queries,
        behind=behind,
        patterns=patterns,
        check=_check(model, pairs, to_logits, checks, seed, fast_seconds, running),
    )


def _strongest(result: Result, count: int, lowering: bool = False) -> tuple[str, ...]:
    """The heads of largest clear effect, only those that lower the metric if asked."""
    rows = [row for row in result.ranking() if row.clear and (row.effect < 0 or not lowering)]
    return tuple(row.sender for row in rows[:count])


def _check(
    model: GPT2,
    pairs: PromptPairs,
    fast: Result,
    checks: int,
    seed: int,
    fast_seconds: float,
    running: dict[str, object],
) -> Check:
    """Senders drawn at random, and the strongest one, rebuilt by the definition."""
    effects = fast.effect.flatten()
    strongest = int(effects.abs().argmax())
    others = [index for index in range(len(fast.senders)) if index != strongest]
    drawn = random.Random(seed).sample(others, min(checks - 1, len(others)))
    chosen = sorted([strongest, *drawn])
    senders = [fast.senders[index] for index in chosen]
    begun = time.perf_counter()
    slow = path_patch(model, pairs, senders, backend="reference", precision="fp64", **running)
    slow_seconds = time.perf_counter() - begun
    values = fast.values.flatten(0, -2)[chosen]
    return Check(
        senders=tuple(senders),
        fast=effects[chosen],
        slow=slow.effect,
        error=sweep_error(values, slow.values),
        allowed=PROMISED[fast.precision],
        fast_seconds=fast_seconds,
        fast_senders=len(fast.senders),
        slow_seconds=slow_seconds,
    )
