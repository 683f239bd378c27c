"""How `ablate` and `activation_patch` run on a fast backend: both are reruns."""

from __future__ import annotations

from ioi_fast.asked.metrics import Metric
from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.calls.choose_backend import Choice
from ioi_fast.calls.surroundings import bar
from ioi_fast.engine import choose_ops
from ioi_fast.engine.engine import Engine
from ioi_fast.engine.reruns import run as fast_reruns
from ioi_fast.model.gpt2 import GPT2
from ioi_fast.plan.reruns_of_asked import Asked
from ioi_fast.results.outcome import Outcome


def rerun(
    model: GPT2,
    pairs: PromptPairs,
    mean_pairs: PromptPairs,
    asked: Asked,
    metric: Metric,
    choice: Choice,
    progress: bool,
) -> tuple[Outcome, str]:
    """Carries out a plan of reruns on a fast backend; what came of it, and the backend's name."""
    table = choose_ops.table_of(choice.backend, choice.precision, model.device)
    with table.workspace(), bar(asked.plan.steps, "reruns", progress) as advance:
        outcome = fast_reruns(Engine.of(model, table), pairs, mean_pairs, asked, metric, advance)
    return outcome, table.backend
