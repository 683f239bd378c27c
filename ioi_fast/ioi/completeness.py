"""The greedy search for sets of heads that a circuit can't do without as the model can (appendix).

From the empty set on, some heads are drawn, the best of them is added, and so on. What "best" means
differs between the released code and the printed algorithm; both are offered by name.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from ioi_fast.asked.circuit import Circuit
from ioi_fast.asked.nodes import Head
from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.ioi.evaluation import Heads, evaluate
from ioi_fast.model.gpt2 import GPT2

RULES = ("code", "paper")


@dataclass(frozen=True, slots=True)
class Visited:
    """A set K that a search looked at, with F(C∖K) and F(M∖K)."""

    heads: Heads
    in_circuit: float
    in_model: float

    @property
    def incompleteness(self) -> float:
        """|F(C∖K) − F(M∖K)|."""
        return abs(self.in_circuit - self.in_model)


@dataclass(frozen=True, slots=True)
class GreedySearch:
    """What each run of a search ended with, and all that any of them looked at, the worst first."""

    rule: str
    last: tuple[Visited, ...]
    visited: tuple[Visited, ...]


def greedy_search(
    model: GPT2,
    pairs: PromptPairs,
    circuit: Circuit,
    *,
    rule: str = "code",
    runs: int = 10,
    steps: int = 10,
    candidates: int = 10,
    seed: int = 0,
    **running: object,
) -> GreedySearch:
    """Looks for sets with large |F(C∖K) − F(M∖K)|.

    Each step draws `candidates` heads of the circuit that are not in K. "code": the head that gives
    K ∪ {v} the largest incompleteness is added if that is larger than K's own. "paper": the head
    that moves F(C∖K) furthest is always added. All runs step together, as one batch. `running`
    goes to `evaluate`. Raises ValueError for another rule and numbers below 1. Source: Wang et al.
    2022, appendix on the greedy search.

    >>> greedy_search(model, pairs, circuit).visited[0].heads    # doctest: +SKIP
    """
    if rule not in RULES:
        raise ValueError(f"rule must be one of {', '.join(RULES)}, got {rule!r}")
    for name, value in (("runs", runs), ("steps", steps), ("candidates", candidates)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    known = _Known(model, pairs, circuit, running)
    known.look([frozenset()])
    searches = [random.Random(f"greedy {seed} {run}") for run in range(runs)]
    held = [frozenset()] * runs
    for _ in range(steps):
        drawn = [
            _drawn(rng, circuit, own, candidates) for rng, own in zip(searches, held, strict=True)
        ]
        known.look([own | {head} for own, heads in zip(held, drawn, strict=True) for head in heads])
        held = [known.next(own, heads, rule) for own, heads in zip(held, drawn, strict=True)]
    visited = sorted(known.found.values(), key=lambda one: (-one.incompleteness, one.heads))
    return GreedySearch(rule, tuple(known.found[own] for own in held), tuple(visited))


def _drawn(rng: random.Random, circuit: Circuit, held: frozenset, count: int) -> list[Head]:
    """Heads without replacement, fewer where fewer are left."""
    left = [head for head in sorted(circuit.roles) if head not in held]
    return rng.sample(left, min(count, len(left)))


@dataclass(slots=True)
class _Known:
    """Sets that were evaluated, each once."""

    model: GPT2
    pairs: PromptPairs
    circuit: Circuit
    running: dict[str, object]
    found: dict[frozenset, Visited] = field(default_factory=dict)

    def look(self, sets: list[frozenset]) -> None:
        """Evaluates those that are new, in one batch."""
        fresh = [one for one in dict.fromkeys(sets) if one not in self.found]
        if not fresh:
            return
        asked = [tuple(sorted(one)) for one in fresh]
        points = evaluate(self.model, self.pairs, self.circuit, asked, **self.running).points
        for one, heads, (inside, outside) in zip(fresh, asked, points.tolist(), strict=True):
            self.found[one] = Visited(heads, inside, outside)

    def next(self, held: frozenset, heads: list[Head], rule: str) -> frozenset:
        """The set that follows; the first drawn of equals, and the set itself if none is left."""
        if not heads:
            return held
        own = self.found[held]

        def gain(head: Head) -> float:
            one = self.found[held | {head}]
            if rule == "code":
                return one.incompleteness - own.incompleteness
            return abs(one.in_circuit - own.in_circuit)

        best = max(heads, key=gain)
        return held | {best} if rule == "paper" or gain(best) > 0 else held
