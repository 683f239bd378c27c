"""About how long the experiments take, told before they run: in sweeps of all heads to the logits.

The plan of such a sweep counts its FLOPs. What others take beside it hardly depends on the model:
the numbers are those of GPT-2 small's shape with the published circuit, from the plans of their
calls; of a search, which can't be known before, those of a typical one.
"""

from __future__ import annotations

from collections.abc import Iterable

from ioi_fast.calls.explain import explain
from ioi_fast.calls.path_patch import path_patch
from ioi_fast.ioi import circuits
from ioi_fast.ioi.study import Study

_SWEEPS = {"F": 0.2, "E1": 1, "D": 47, "E2": 0.4, "E3": 0.2, "E4": 0.2, "E6": 1.1, "E7": 0.6}
_SWEEPS |= {"E8": 0.2, "E9": 1.9, "E10": 0.3, "E11": 2.6, "E12": 2.6, "E13": 1, "E14": 3.9}
_SWEEPS |= {"E15": 5.9, "E16": 2, "E17": 0.2, "E19": 2.4, "E20": 1.2, "E21": 70, "E22": 2.8}
_SWEEPS |= {"E24": 0.7, "E25": 1.2}
_QUICK = {"E21": 7.7}  # fewer random sets
# Those that have nothing to do where a circuit has no heads of a class.
_OF_CLASS = {"E6": circuits.MOVERS, "E15": circuits.INDUCTION}
_OF_CLASS |= dict.fromkeys(("E9", "E10", "E11", "E12", "E13", "E14"), circuits.INHIBITION)


def predicted_flops(study: Study, names: Iterable[str]) -> int:
    """FLOPs of some experiments, about, on the model and prompts of a study.

    >>> predicted_flops(study, ["E1"]) / 1e9    # doctest: +SKIP
    """
    sweeps = _SWEEPS | (_QUICK if study.quick else {})
    if study.circuit is not None:
        has = {name: circuits.members(study.circuit, kind) for name, kind in _OF_CLASS.items()}
        names = [name for name in names if has.get(name, True)]
    # A plan is the same on every backend, and the reference's own precision has none.
    one = explain(path_patch, study.model, study.pairs).flops
    return int(one * sum(sweeps[name] for name in names))
