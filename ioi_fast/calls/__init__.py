"""The public calls: each validates, chooses a backend, runs and labels."""

from __future__ import annotations

from ioi_fast.calls.pair_sweeps import pair_sweep
from ioi_fast.calls.path_patching import path_patch
from ioi_fast.calls.patterns import attention
from ioi_fast.calls.plans import explain
from ioi_fast.calls.reruns import ablate, activation_patch

__all__ = ["ablate", "activation_patch", "attention", "explain", "pair_sweep", "path_patch"]
