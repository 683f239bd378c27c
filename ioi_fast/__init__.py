"""ioi_fast: what would GPT-2 have said if this head had seen something else?

Exact path patching, activation patching and ablation of GPT-2, carried as differences in one wave.
"""

from __future__ import annotations

from ioi_fast.calls import ablate, activation_patch, attention, explain, pair_sweep, path_patch
from ioi_fast.checkpoint import load
from ioi_fast.circuit import Circuit
from ioi_fast.config import GPT2Config
from ioi_fast.ioi.dataset import ioi_prompts
from ioi_fast.model import GPT2
from ioi_fast.pair_results import PairResult
from ioi_fast.prompt_files import load_prompts
from ioi_fast.prompts import PromptPairs
from ioi_fast.results import Result

__all__ = [
    "GPT2",
    "Circuit",
    "GPT2Config",
    "PairResult",
    "PromptPairs",
    "Result",
    "ablate",
    "activation_patch",
    "attention",
    "explain",
    "ioi_prompts",
    "load",
    "load_prompts",
    "pair_sweep",
    "path_patch",
]
