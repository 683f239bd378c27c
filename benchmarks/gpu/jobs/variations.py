"""A job's values in other company: one variant alone, some of them, another bound of memory."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from ioi_fast import ablate, pair_sweep, path_patch
from ioi_fast.benchmarks.gpu.jobs.job import Job, one_pair
from ioi_fast.benchmarks.gpu.setting import Setting

SHARES = (0.5, 0.75, 0.9)  # of the plan's peak; a job may not fit into the smaller ones
Company = tuple[str, tuple[Tensor, Tensor]]


def variations(setting: Setting, one: Job, precision: str, whole: Tensor) -> Iterator[Company]:
    """A name, and values with those of the whole job that they should be."""
    how, model = {"backend": "triton", "precision": precision}, setting.model
    sample, pairs = one.chosen(whole), one.pairs
    if one.call is path_patch:
        for kind, count in (("alone", 1), ("subset", len(one.sample))):
            some = one.sample[:count]
            yield kind, (path_patch(model, pairs, some, **one.asked, **how).values, sample[:count])
    elif one.call is ablate:
        base = one.asked["base"]
        for kind, count in (("alone", 1), ("subset", len(one.sample))):
            some = one.sample[:count]
            yield kind, (ablate(model, pairs, some, base=base, **how).values, sample[:count])
    elif one.call is pair_sweep:
        yield "alone", (one_pair(model, pairs, one.sample[0], **how), sample[0])
        yield (
            "subset",
            (pair_sweep(model, pairs, ("k",), per_prompt=True, **how).values[0], whole[1]),
        )
    for share in SHARES:
        bound = int(share * one.plan(setting.host).peak_bytes)
        try:
            yield "max_memory", (one.run(model, precision, max_memory=bound), whole)
        except ValueError:  # too little for one prompt
            continue
        return
