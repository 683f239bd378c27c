"""ioi_fast: what would GPT-2 have said if this head had seen something else?

Exact path patching, activation patching and ablation of GPT-2, carried as differences in one wave.
"""

from __future__ import annotations

from ioi_fast.asked.circuit import Circuit
from ioi_fast.asked.prompt_files import load_prompts
from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.calls.ablate import ablate
from ioi_fast.calls.activation_patch import activation_patch
from ioi_fast.calls.attention import attention
from ioi_fast.calls.explain import explain
from ioi_fast.calls.pair_sweep import pair_sweep
from ioi_fast.calls.path_patch import path_patch
from ioi_fast.ioi.dataset import ioi_prompts
from ioi_fast.model.checkpoint import load
from ioi_fast.model.config import GPT2Config
from ioi_fast.model.gpt2 import GPT2
from ioi_fast.results.pair_result import PairResult
from ioi_fast.results.result import Result

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
