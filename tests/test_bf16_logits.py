"""Differences in bf16 in every call: how far off what a variant changes in the logits is.

One number read from the logits can be small beside that change: of a logit difference that nearly
cancels less is known. Several random numbers read together can't all cancel.
"""

from __future__ import annotations

import warnings

import pytest
from changed_logits import CALLS, of_logits

from ioi_fast.results.promised_accuracy import BF16_LOGITS, BF16_MEDIAN, sweep_errors


@pytest.mark.parametrize("kind", list(CALLS))
def test_what_changes_in_the_logits(kind: str) -> None:
    truth = of_logits(*CALLS[kind], backend="reference", precision="fp64")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a CPU without bf16 arithmetic rounds, and says so
        values = of_logits(*CALLS[kind], backend="cpu", precision="bf16")
    errors = sweep_errors(values, truth)
    said = f"median {errors.median():.1e}, worst {errors.max():.1e}"
    assert errors.median() <= BF16_MEDIAN and errors.max() <= BF16_LOGITS, said
    assert errors.max() > 1e-5, "these are not differences in bf16"
