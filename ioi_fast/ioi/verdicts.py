"""Measured figures beside published ones: what is accepted, and verdicts, for GPT-2 small alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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


def is_near(measured: float, published: float, tolerance: float) -> bool:
    """Whether a figure is within the tolerance of the published one; NaN is near nothing."""
    return abs(measured - published) <= tolerance


def verdict(met: bool, applicable: bool) -> str:
    """The verdict on whether a published figure is met, where it can be asked."""
    if not applicable:
        return NOT_APPLICABLE
    return AGREES if met else DIFFERS


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

    def near(
        self,
        name: str,
        value: float,
        published: float,
        tolerance: float,
        error: float | None = None,
    ) -> Measure:
        """A figure that is accepted within a tolerance of the published one."""
        met = is_near(value, published, tolerance)
        return self._of(name, value, f"{published:g}", f"± {tolerance:g}", met, error)

    def within(
        self,
        name: str,
        value: float,
        published: str,
        low: float = float("-inf"),
        high: float = float("inf"),
        error: float | None = None,
    ) -> Measure:
        """A figure that is accepted between two bounds."""
        bounds = [f"≥ {low:g}"] * (low > float("-inf")) + [f"≤ {high:g}"] * (high < float("inf"))
        return self._of(name, value, published, ", ".join(bounds), low <= value <= high, error)

    def heads(
        self, name: str, found: Iterable[object], published: Sequence[str], least: int | None = None
    ) -> Measure:
        """A set of heads: all that were published, or at least so many of them, are among these."""
        found, least = [str(head) for head in found], len(published) if least is None else least
        met = len(set(found) & set(published)) >= least
        accepted = "all of them" if least == len(published) else f"{least} of them"
        return self._of(name, ", ".join(found), ", ".join(published), accepted, met, None)

    def plain(self, name: str, value: float | str, error: float | None = None) -> Measure:
        """A figure of which nothing was published in digits."""
        return Measure(name, value, self.prompts, error)

    def _of(
        self,
        name: str,
        value: float | str,
        published: str,
        tolerance: str,
        met: bool,
        error: float | None,
    ) -> Measure:
        said = verdict(met, self.applicable)
        if self.applicable and self.own_wording:
            said += OWN_WORDING
        return Measure(name, value, self.prompts, error, published, tolerance, said)
