"""What an experiment gives: measured figures beside published ones, and figures to show."""

from __future__ import annotations

from dataclasses import dataclass, field

from ioi_fast.asked.circuit import Circuit
from ioi_fast.ioi.verdicts import Measure
from ioi_fast.report.figures import Section, Table


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
