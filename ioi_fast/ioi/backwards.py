"""Heads that matter, from the logits backwards, as the paper's authors found theirs (section 3).

Who writes to the logits; who to those heads' queries, and to their keys and values where they read;
and so on until nobody is left that matters. A head counts at a role when patching its paths moves
the metric by enough and with one sign in more prompts than chance gives. Heads that only act when
others are gone are looked for last.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from ioi_fast.asked.nodes import Head
from ioi_fast.asked.prompts import END, PromptPairs
from ioi_fast.calls.path_patch import path_patch
from ioi_fast.ioi import circuits
from ioi_fast.ioi.class_of_head import KNOCKED_OUT, LOGITS, Traits, class_of
from ioi_fast.ioi.copying import CopyScores, copy_scores
from ioi_fast.ioi.reading import places_read
from ioi_fast.ioi.roles import with_roles
from ioi_fast.ioi.significance import LEAST, LEVEL, counting
from ioi_fast.model.gpt2 import GPT2
from ioi_fast.results.result import Result

Node = tuple[Head, str]


class NothingToFind(ValueError):
    """The model does not do the task, or no head matters for it."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What made a head count: patching its paths to `receivers` changes the metric."""

    receivers: str  # "logits", or a class and its input, as "name mover.q"
    effect: float  # share of F(M); negative where the head works for the answer
    stderr: float
    p: float


@dataclass(slots=True)
class Found:
    """A head at a role, where it reads, and why it counts."""

    head: Head
    role: str
    name: str  # of its class
    reads: tuple[str, ...]
    evidence: list[Evidence] = field(default_factory=list)

    @property
    def strength(self) -> float:
        """The largest of its effects, as a share of F(M)."""
        return max(abs(one.effect) for one in self.evidence)

    def __str__(self) -> str:
        return f"{self.head}@{self.role}"


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """Heads that count, the strongest first, and the prompts with the roles that they stand at."""

    pairs: PromptPairs
    found: tuple[Found, ...]
    of_model: float  # F(M)
    sweeps: int  # calls of path_patch that it took


def search_backwards(
    model: GPT2,
    pairs: PromptPairs,
    *,
    least: float = LEAST,
    level: float = LEVEL,
    source: str = "mean_by_form",
    **running: object,
) -> Search:
    """Heads that matter for the answer, from the logits backwards.

    A head counts with an effect of at least `least` of F(M) and a sign test below `level` divided
    by the number of heads that were tried. Receivers of a class are patched at once, keys and
    values at each token that their heads read (`places_read`), which may become a role of its own,
    such as END-1. `source` is what heads are knocked out by in the search for back-ups; `running`
    goes to the calls. Raises NothingToFind where F(M) is not positive, and as `path_patch` does.
    Source: Wang et al. 2022, section 3.

    >>> [str(one) for one in search_backwards(model, pairs).found][:3]    # doctest: +SKIP
    """
    if not 0 < least < 1 or not 0 < level < 1:
        raise ValueError(f"least and level must lie between 0 and 1, got {least} and {level}")
    return _Backwards(model, pairs, least, level, source, running).run()


@dataclass(slots=True, eq=False)
class _Backwards:
    model: GPT2
    pairs: PromptPairs
    least: float
    level: float
    source: str
    running: Mapping[str, object]
    found: dict[Node, Found] = field(default_factory=dict)
    waiting: deque[list[Found]] = field(default_factory=deque)
    sweeps: int = 0
    named: tuple[str, ...] = ()
    of_model: float = 0.0
    copies: CopyScores | None = None

    def run(self) -> Search:
        self.named = self.pairs.roles
        if "IO" in self.named:
            self.copies = copy_scores(self.model, self.pairs, ("IO",))
        result = self._sweep()
        self.of_model = float(result.base.double().mean())
        if not self.of_model > 0:
            raise NothingToFind(
                f"pairs: the model must prefer the answers, so that there is something to find; "
                f"its mean metric is {self.of_model:.3g}"
            )
        self._take(result.values, result, END, LOGITS)
        self._follow()
        self._back_ups(result)
        self._follow()
        ranked = sorted(self.found.values(), key=lambda one: (-one.strength, one.head, one.role))
        return Search(self.pairs, tuple(ranked), self.of_model, self.sweeps)

    def _follow(self) -> None:
        """Who writes to the heads that are waiting, until none is."""
        while self.waiting:
            group = self.waiting.popleft()
            name, role = group[0].name, group[0].role
            self._to(group, "q", role, name)
            for place in dict.fromkeys(place for one in group for place in one.reads):
                self.pairs = with_roles(self.pairs, [place])
                readers = [one for one in group if place in one.reads]
                for site in ("k", "v"):
                    self._to(readers, site, place, name)

    def _to(self, readers: Sequence[Found], site: str, role: str, name: str) -> None:
        receivers = [f"{one.head}.{site}" for one in readers if one.head.layer > 0]
        if receivers:
            result = self._sweep(receivers=receivers, position=role)
            self._take(result.values, result, role, f"{name}.{site}")

    def _sweep(self, **asked: object) -> Result:
        self.sweeps += 1
        return path_patch(self.model, self.pairs, **asked, **self.running)

    def _take(
        self,
        values_SN: Tensor,
        result: Result,
        role: str,
        receivers: str,
        after: Mapping | None = None,
    ) -> None:
        """Keeps the heads of a sweep that count; new ones wait in groups of a class."""
        reasons = self._reasons(values_SN, result, receivers)
        fresh = [head for head in reasons if self._is_new(head, role, reasons[head])]
        reads = self._reads(fresh, role, after)
        groups: dict[str, list[Found]] = {}
        for head, reason in reasons.items():
            if head in reads:
                name = self._name(head, role, reads[head], reason)
                before = self.found.get((head, role))
                one = self.found[head, role] = Found(head, role, name, reads[head])
                one.evidence += [] if before is None else before.evidence
                groups.setdefault(name, []).append(one)
            self.found[head, role].evidence.append(reason)
        self.waiting.extend(groups.values())

    def _reasons(self, values_SN: Tensor, result: Result, receivers: str) -> dict[Head, Evidence]:
        values = values_SN.double()
        effects = values.mean(-1) / self.of_model
        errors = values.std(-1) / (self.of_model * values.shape[-1] ** 0.5)
        counts, p_values = counting(values, effects, self.least, self.level)
        evidence = zip(effects.tolist(), errors.tolist(), p_values, strict=True)
        return {
            Head.parse(sender): Evidence(receivers, *one)
            for sender, one, meant in zip(result.senders, evidence, counts, strict=True)
            if meant
        }

    def _is_new(self, head: Head, role: str, reason: Evidence) -> bool:
        """Not found before, or found now to write to the logits for a stronger reason: a back-up
        that does a little without being needed is a back-up."""
        known = self.found.get((head, role))
        if known is None:
            return True
        if reason.receivers != KNOCKED_OUT:
            return False
        own = [abs(one.effect) for one in known.evidence if one.receivers == LOGITS]
        return bool(own) and abs(reason.effect) > max(own)

    def _reads(
        self, heads: Sequence[Head], role: str, after: Mapping | None
    ) -> dict[Head, tuple[str, ...]]:
        if not heads:
            return {}
        running = {k: v for k, v in self.running.items() if k in ("backend", "threads")}
        found = places_read(self.model, self.pairs, heads, role, self.named, after, **running)
        return dict(zip(heads, found.values(), strict=True))

    def _name(self, head: Head, role: str, reads: tuple[str, ...], reason: Evidence) -> str:
        copies = negative = 0.0
        if self.copies is not None:
            copies, negative = (
                float(scores[head.layer, head.head])
                for scores in (self.copies.copies, self.copies.negative)
            )
        for_answer = reason.effect < 0
        return class_of(Traits(role, reads, reason.receivers, for_answer, copies, negative))

    def _back_ups(self, before: Result) -> None:
        """Heads that write for the answer once those that did are knocked out."""
        movers = [
            str(one.head)
            for one in self.found.values()
            if circuits.base_name(one.name) == circuits.MOVERS
        ]
        if not movers:
            return
        without = {"knock_out": dict.fromkeys(movers, END), "knock_out_source": self.source}
        after = self._sweep(**without)
        # What patching takes away now and did not before; nothing where it takes nothing now.
        grown = after.values.double() - before.values.double()
        helps = after.values.double().mean(-1).flatten() < 0
        grown = grown.where(helps[:, None], 0.0)
        # Paths to the logits leave the patterns as the knock-outs made them.
        self._take(grown, after, END, KNOCKED_OUT, {"senders": movers[:1], **without})
