"""The roof: what this machine's matrix products reach, measured in the same process."""

from __future__ import annotations

import statistics
import time

import torch

from ioi_fast.engine import choose_ops

ROWS, IN, OUT = 2304, 768, 3072


def matrix_rate(precision: str = "fp32", repeats: int = 20) -> float:
    """FLOP/s: median of `repeats` packed products of 2304×768×3072 in a precision."""
    rows, weight = torch.randn(ROWS, IN), torch.randn(IN, OUT)
    product = choose_ops.cpu(precision).linear(weight, None).delta
    product(rows)
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        product(rows)
        seconds.append(time.perf_counter() - begun)
    return 2 * ROWS * IN * OUT / statistics.median(seconds)
