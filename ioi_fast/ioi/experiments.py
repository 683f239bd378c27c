"""The paper's experiments by name, on any study: what is found, beside what was published.

E1 to E19 are those of sections 3.1 to 3.4 and the appendix, E20 to E23 the tests of the circuit,
E24 the adversarial sentences, E25 how sparse E1 is in other models; D finds a circuit. Each takes
a study and gives a finding; those that ask for classes of heads raise NeedsCircuit without them,
those that read roles by name NeedsRoles, those that draw prompts NeedsTokenizer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

from ioi_fast.ioi import experiments_circuit as of_circuit
from ioi_fast.ioi import experiments_discovery as of_discovery
from ioi_fast.ioi import experiments_heads as of_heads
from ioi_fast.ioi import experiments_paths as of_paths
from ioi_fast.ioi.finding import Finding
from ioi_fast.ioi.study import Study

Experiment = Callable[[Study], Finding]
_NAMES = ("IO", "S1", "S2")
# Roles that are read by name, beyond END and those of a circuit's heads. Signals are drawn with
# the roles of the task: heads that were found on prompts without them stand for nothing there.
ROLES: dict[str, tuple[str, ...]] = {
    "E2": ("IO", "S1"),
    "E3": _NAMES,
    "E4": _NAMES,
    "E7": ("IO", "S1"),
    "E8": ("S2",),
    "E9": _NAMES,
    "E10": _NAMES,
    "E14": _NAMES,
    "E15": ("S1+1",),
}
# Those that write sentences of their own.
DRAWING = frozenset({"E9", "E10", "E14", "E24"})


def _checked(name: str, run: Experiment) -> Experiment:
    """The experiment, which says first what the prompts or the model lack."""

    @wraps(run)
    def checked(study: Study) -> Finding:
        study.check(ROLES.get(name, ()), name in DRAWING)
        return run(study)

    return checked


_RUN: dict[str, Experiment] = {
    "F": of_circuit.behaviour,
    "E1": of_paths.heads_to_logits,
    "D": of_discovery.discovered,
    "E2": of_heads.mover_attention,
    "E3": of_heads.writing_direction,
    "E4": of_heads.copying,
    "E6": of_paths.heads_to_mover_queries,
    "E7": of_heads.mover_attention_after,
    "E8": of_heads.inhibition_attention,
    "E9": of_paths.signals,
    "E10": of_paths.longer_prefix,
    "E11": of_paths.heads_to_inhibition_values,
    "E12": of_paths.heads_to_inhibition_keys,
    "E13": of_paths.heads_to_inhibition_queries,
    "E14": of_paths.origin_of_signals,
    "E15": of_paths.heads_to_induction_keys,
    "E16": of_paths.backing_up,
    "E17": of_heads.repeated,
    "E19": of_paths.mlps,
    "E20": of_circuit.faithfulness,
    "E21": of_circuit.completeness,
    "E22": of_circuit.minimal,
    "E24": of_circuit.adversarial_sentences,
    "E25": of_discovery.sparsity,
}
EXPERIMENTS = {name: _checked(name, run) for name, run in _RUN.items()}
# Those that ask nothing of a circuit.
WITHOUT_CIRCUIT = frozenset({"F", "E1", "D", "E17", "E19", "E24", "E25"})
# Told with another, from the same runs.
TOGETHER = {"E5": "E4", "E18": "E17", "E23": "E20"}


def named(names: list[str]) -> list[str]:
    """Experiments that are asked for, each once, in the order of the paper; all without names.

    Raises ValueError for a name that is none.
    """
    wanted = [TOGETHER.get(name.upper(), name.upper()) for name in names]
    for name, given in zip(wanted, names, strict=True):
        if name not in EXPERIMENTS:
            known = ", ".join([*EXPERIMENTS, *TOGETHER])
            raise ValueError(f"experiments are {known}, got {given!r}")
    return [name for name in EXPERIMENTS if not wanted or name in wanted]
