"""What an ablated output can take: one row a source (paper section 6)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Source:
    """Where the values of a source come from; from none of these, they are zero."""

    of_means: bool = False  # over the new prompts of mean_pairs
    by_form: bool = False  # over those of the prompt's own form
    of_new: bool = False  # the prompt's own new run


SOURCES: dict[str, Source] = {
    "mean": Source(of_means=True),
    "mean_by_form": Source(of_means=True, by_form=True),
    "zero": Source(),
    "new": Source(of_new=True),
}
