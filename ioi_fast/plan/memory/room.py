"""What a process grows by for the tensors of a plan, by how a call runs.

Pure Python, no torch. Bounds, not estimates: of what libraries and threads keep for themselves no
one knows more than that it has a limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ioi_fast.model.config import GPT2Config

FLOAT = 4
# Bytes of what is no large tensor: blocks and buffers of kernels and libraries, small tensors.
BESIDE = 5 << 20
# Tensors of a block that are smaller than those that are counted.
_TENSORS = 1.03
# Each thread has a stack, a heap of the C library's and the block of rows that its kernels work on;
# those of the first ones are in BESIDE.
_THREADS = 2
_OF_A_THREAD = 7 << 18
# The C library keeps freed pieces that fit nothing that follows (kernels/cpu/workspace_ops.cpp).
_KEPT = 1.8
# Tensors on the way of an operation in plain torch, each of at most so many floats
# (kernels/row_blocks.py), and rows of a product at a time.
_ON_THE_WAY, _FLOATS, _PRODUCT_ROWS = 12, 1 << 17, 256
# What plans hold of a prompt in integers, and what looks at all its tokens before a call runs.
_OF_A_PROMPT, _OF_A_TOKEN = 800, 20


def of_prompts(lasts: Sequence[int], variants: int) -> int:
    """Bytes that grow with the prompts of a call, whatever its blocks: what is asked of them, and
    a value of every variant. `lasts` are their last tokens."""
    tokens = max(lasts, default=-1) + 1
    return len(lasts) * (_OF_A_PROMPT + _OF_A_TOKEN * tokens + FLOAT * variants)


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes beside the tensors of a plan, and how many a process takes for each byte of them.

    >>> Room(share=2.0, beside=100).bytes(10)
    180
    """

    share: float = _TENSORS
    beside: int = BESIDE

    @classmethod
    def of(cls, config: GPT2Config, *, compiled: bool, fused: bool, threads: int) -> Room:
        """Of a call on a CPU: whether the workspace of the C++ kernels is open, and whether an MLP
        is one of them or runs in blocks of rows."""
        share = _TENSORS if compiled else _KEPT
        beside = BESIDE + max(0, threads - _THREADS) * _OF_A_THREAD
        if not fused:
            hidden = 4 * _PRODUCT_ROWS * (config.n_embd + config.d_mlp)
            beside += int(share * FLOAT * (hidden + _ON_THE_WAY * _FLOATS))
        return cls(share, beside)

    def bytes(self, floats: int) -> int:
        """What a process grows by while tensors of so many floats are there."""
        return int(self.share * FLOAT * floats) + self.beside
