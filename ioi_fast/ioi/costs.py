"""What the experiments cost, in FLOPs that their definitions make unavoidable, before they run.

The counts come from the plans of the calls that take the time; clean runs are counted by hand. What
a search will do is not known before: of a discovery a typical number of sweeps is counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from ioi_fast.asked.circuit import Circuit
from ioi_fast.asked.nodes import Head
from ioi_fast.calls.ablate import ablate
from ioi_fast.calls.activation_patch import activation_patch
from ioi_fast.calls.explain import explain
from ioi_fast.calls.path_patch import path_patch
from ioi_fast.ioi import circuits
from ioi_fast.ioi.evaluation import class_sets, random_sets
from ioi_fast.ioi.experiments_circuit import GREEDY, RANDOM_SETS
from ioi_fast.ioi.minimality import minimality_sets, unclassed
from ioi_fast.ioi.paths import ATTENDED
from ioi_fast.ioi.study import Study
from ioi_fast.ioi.tellers import tellers_of
from ioi_fast.model.gpt2 import GPT2
from ioi_fast.plan.work import run_flops

# Of a discovery: sweeps, circuits on the way down, and nodes of the largest.
_SWEEPS, _STEPS, _NODES = 20, 20, 30


def predicted_flops(study: Study, name: str) -> int:
    """FLOPs of an experiment; 0 where the study lacks what it asks for.

    >>> predicted_flops(study, "E1") / 1e9    # doctest: +SKIP
    """
    try:
        return _COSTS[name](study)
    except ValueError:  # which the experiment itself will say
        return 0


def _run(model: GPT2, rows: int) -> int:
    config = model.config
    return sum(run_flops(config, False, rows, 0) for _ in range(config.n_layer))


def _runs(count: float, logits: bool = False) -> Callable[[Study], int]:
    """Clean runs of all prompts, with every logit of every token or none."""

    def cost(study: Study) -> int:
        config, rows = study.model.config, int((study.pairs.end + 1).sum())
        unembedding = 2 * rows * config.n_embd * config.vocab_size if logits else 0
        return int(count * (_run(study.model, rows) + unembedding))

    return cost


def _sweep(**asked: object) -> Callable[[Study], int]:
    def cost(study: Study) -> int:
        return explain(path_patch, study.model, study.pairs, **asked, **_how(study)).flops

    return cost


def _how(study: Study) -> dict[str, object]:
    """Without a precision that only the reference has; a plan is the same on every backend."""
    precision = study.running.get("precision", "fp32")
    return {"precision": "fp32" if precision == "fp64" else precision}


def _to(name: str, site: str) -> Callable[[Study], int]:
    """A sweep to the heads of a class."""

    def cost(study: Study) -> int:
        heads, position = _class(study, name)
        if all(Head.parse(str(head)).layer == 0 for head in heads):
            return 0  # nobody comes before them
        if site != "q":
            position = ATTENDED.get(name, position)
        known = position if position in study.pairs.positions else "END"
        receivers = [f"{head}.{site}" for head in heads]
        return _sweep(receivers=receivers, position=known)(study)

    return cost


def _class(study: Study, name: str) -> tuple[Sequence[object], str]:
    if study.circuit is None:
        return (), ""
    tellers = tellers_of(study.circuit) if name == circuits.INHIBITION else None
    if tellers is not None:
        return tellers.heads, tellers.role
    heads = circuits.members(study.circuit, name)
    return heads, circuits.role_of(study.circuit, name) if heads else ""


def _patches(count: int, name: str) -> Callable[[Study], int]:
    """Activation patches of a class at once."""

    def cost(study: Study) -> int:
        heads, role = _class(study, name)
        if not heads:
            return 0
        asked = {"site": "z", "position": role, "heads": [list(map(str, heads))]}
        plan = explain(activation_patch, study.model, study.pairs, **asked, **_how(study))
        return count * plan.flops

    return cost


def _sets(study: Study, circuit: Circuit, sets: Sequence[Sequence[Head]]) -> int:
    """Knock-outs in the circuit and in the model."""
    distinct = {frozenset(heads) for heads in sets}
    variants = [{str(h): circuit.roles[h] for h in sorted(heads)} for heads in distinct]
    how = {**study.knocking_out, **_how(study)}
    return sum(
        explain(ablate, study.model, study.pairs, variants=variants, base=base, **how).flops
        for base in (circuit, "model")
    )


def _of_circuit(sets: Callable[[Study, Circuit], list]) -> Callable[[Study], int]:
    def cost(study: Study) -> int:
        circuit = study.circuit
        asked = [] if circuit is None else sets(study, circuit)
        return _sets(study, circuit, asked) if asked else 0

    return cost


def _completeness(study: Study, circuit: Circuit) -> list:
    """Class and random sets; those that a greedy search looks at are like random ones."""
    count = RANDOM_SETS[study.quick] + math.prod(GREEDY[study.quick].values())
    return [*class_sets(circuit).values(), *random_sets(circuit, count)]


def _minimality(_study: Study, circuit: Circuit) -> list:
    if unclassed(circuit):
        return []
    sets = minimality_sets(circuit).items()
    return [heads for head, others in sets for heads in (others, (*others, head))]


def _knocked_mlps(study: Study) -> int:
    variants = [{f"mlp{layer}": "all"} for layer in range(study.model.config.n_layer)]
    how = {**study.knocking_out, **_how(study)}
    plan = explain(ablate, study.model, study.pairs, variants=variants, **how)
    return _sweep(senders="mlps")(study) + plan.flops


def _discovery(study: Study) -> int:
    """Sweeps like those to the queries of a late layer, and circuits of knock-outs."""
    few = replace(study, pairs=study.pairs.select(slice(0, 100)), circuit=None)
    last = study.model.config.n_layer - 1
    sweep = _sweep(receivers=[f"{last}.0.q"], position="END")(few) if last else 0
    few_heads = range(min(2, study.model.config.n_head))
    heads = [Head(layer, head) for layer in range(last + 1) for head in few_heads][:_NODES]
    circuit = Circuit({str(head): "END" for head in heads})
    step = _sets(few, circuit, [[], *([head] for head in heads)])
    return _SWEEPS * (sweep + _sweep()(few)) // 2 + _STEPS * step


def _behind(study: Study) -> bool:
    """Whether the circuit has both classes that tell the S-inhibition heads."""
    named = (circuits.DUPLICATE, circuits.INDUCTION)
    return study.circuit is not None and all(circuits.members(study.circuit, n) for n in named)


def _repeats(study: Study) -> int:
    length = min(100, study.model.config.n_positions // 2)
    return _run(study.model, 2 * length * (4 if study.quick else 16))


_INHIBITION = circuits.INHIBITION
_COSTS: dict[str, Callable[[Study], int]] = {
    "F": _runs(1, logits=True),
    "E1": _sweep(),
    "D": _discovery,
    "E2": _runs(2),
    "E3": _runs(1),
    "E4": _runs(1),
    "E6": _to(circuits.MOVERS, "q"),
    "E7": _runs(3),
    "E8": _runs(1),
    "E9": _patches(6, _INHIBITION),
    "E10": _patches(1, _INHIBITION),
    "E11": _to(_INHIBITION, "v"),
    "E12": _to(_INHIBITION, "k"),
    "E13": _to(_INHIBITION, "q"),
    "E14": lambda study: _patches(12, _INHIBITION)(study) if _behind(study) else 0,
    "E15": _to(circuits.INDUCTION, "k"),
    "E16": lambda study: 2 * _sweep()(study),
    "E17": _repeats,
    "E19": _knocked_mlps,
    "E20": _of_circuit(lambda study, circuit: [()]),
    "E21": _of_circuit(_completeness),
    "E22": _of_circuit(_minimality),
    "E24": _runs(3.5, logits=True),
    "E25": lambda study: _sweep()(study) + _runs(1)(study),
}
