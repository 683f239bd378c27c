"""What an experiment gives: measured figures beside published ones, and figures to show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ioi_fast.asked.circuit import Circuit
from ioi_fast.ioi.verdicts import OWN_WORDING, verdict
from ioi_fast.report.figures import Section, Table


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
class Finding:
    """An experiment's result, as plain data."""

    experiment: str
    title: str
    measures: tuple[Measure, ...]
    figures: tuple[Section, ...] = field(default=())
    circuit: Circuit | None = None  # that was found

    def table(self) -> Table:
        """The measures as a table."""
        return Table(
            title=f"{self.experiment}: {self.title}",
            caption="",
            columns=["figure", "measured", "± s.e.", "prompts", "published", "accepted", "verdict"],
            rows=[
                [
                    one.name,
                    one.value if isinstance(one.value, str) else round(one.value, 4),
                    None if one.error is None else round(one.error, 4),
                    one.prompts,
                    one.published or None,
                    one.tolerance or None,
                    one.verdict or None,
                ]
                for one in self.measures
            ],
        )


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
        met = abs(value - published) <= tolerance
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
