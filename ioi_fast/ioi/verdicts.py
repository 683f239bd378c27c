"""Measured figures beside published ones: what is accepted, and verdicts, for GPT-2 small alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ioi_fast.model.config import GPT2Config
from ioi_fast.model.gpt2 import GPT2

AGREES, DIFFERS, NOT_APPLICABLE = "agrees", "differs", "not applicable to this model"
OWN_WORDING = " (own wording)"
_NAMES = ("gpt2", "openai-community/gpt2")


def is_gpt2_small(model: GPT2) -> bool:
    """Whether a model is GPT-2 small by name and shapes: no other can be held to its figures."""
    return model.name in _NAMES and _shapes(model.config) == _shapes(GPT2Config())


def _shapes(config: GPT2Config) -> tuple[int, ...]:
    return (config.n_layer, config.n_head, config.n_embd, config.d_mlp, config.vocab_size)


def verdict(met: bool, applicable: bool) -> str:
    """The verdict on whether a published figure is met, where it can be asked."""
    if not applicable:
        return NOT_APPLICABLE
    return AGREES if met else DIFFERS


@dataclass(frozen=True, slots=True)
class Near:
    """A published figure, and how far from it a measured one may be."""

    published: float
    tolerance: float

    @property
    def text(self) -> str:
        """The published figure, as it is printed."""
        return f"{self.published:g}"

    @property
    def accepted(self) -> str:
        """What is accepted, as it is printed."""
        return f"± {self.tolerance:g}"

    def accepts(self, value: float) -> bool:
        """Whether a figure is within the tolerance; NaN is near nothing."""
        return abs(value - self.published) <= self.tolerance


@dataclass(frozen=True, slots=True)
class Within:
    """What was published in words or digits, and the bounds between which a figure is accepted."""

    published: str
    low: float = float("-inf")
    high: float = float("inf")

    @property
    def text(self) -> str:
        """What was published, as it is printed."""
        return self.published

    @property
    def accepted(self) -> str:
        """The bounds, as they are printed."""
        bounds = [f"≥ {self.low:g}"] * (self.low > float("-inf"))
        bounds += [f"≤ {self.high:g}"] * (self.high < float("inf"))
        return ", ".join(bounds)

    def accepts(self, value: float) -> bool:
        """Whether a figure is between the bounds."""
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class AmongHeads:
    """Published heads, such as "9.9, 9.6", of which all or at least so many have to be found."""

    published: str
    least: int | None = None

    @property
    def text(self) -> str:
        """The published heads, as they are printed."""
        return self.published

    @property
    def heads(self) -> list[str]:
        """The published heads one by one."""
        return self.published.split(", ")

    @property
    def accepted(self) -> str:
        """How many are enough, as it is printed."""
        return "all of them" if self._enough == len(self.heads) else f"{self._enough} of them"

    def accepts(self, found: Sequence[str]) -> bool:
        """Whether enough of the published heads are among these."""
        return len({*found} & {*self.heads}) >= self._enough

    @property
    def _enough(self) -> int:
        return len(self.heads) if self.least is None else self.least


Published = Near | Within | AmongHeads


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure, or a list of heads, with what was published of it.

    `verdict` is "agrees", "differs", either with "(own wording)" behind it where prompts are not of
    a file, "not applicable to this model", or empty where nothing was published; `error` is a
    standard error in the figure's own unit.
    """

    name: str
    value: float | str
    prompts: int
    error: float | None = None
    published: str = ""
    tolerance: str = ""
    verdict: str = ""


@dataclass(frozen=True, slots=True)
class Scale:
    """What makes measures: the number of prompts, whether the model is GPT-2 small, and whether
    prompts are worded by us, which a verdict then says."""

    prompts: int
    applicable: bool
    own_wording: bool = False

    def measure(
        self,
        name: str,
        value: float | Sequence[str],
        published: Published,
        error: float | None = None,
    ) -> Measure:
        """A figure, or the heads that were found, beside what was published."""
        shown = value if isinstance(value, int | float) else ", ".join(value)
        said = verdict(published.accepts(value), self.applicable)
        if self.applicable and self.own_wording:
            said += OWN_WORDING
        return Measure(name, shown, self.prompts, error, published.text, published.accepted, said)

    def plain(self, name: str, value: float | str, error: float | None = None) -> Measure:
        """A figure of which nothing was published in digits."""
        return Measure(name, value, self.prompts, error)
