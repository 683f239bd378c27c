"""What a process has set for all of torch, kept out of a call: threads, device, precision."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from ioi_fast.kernels.fp32_products import fp32_products

_IMPORTED_IN = os.getpid()


@contextmanager
def own_settings() -> Iterator[None]:
    """Runs as in a process that has set nothing: products of fp32 in fp32, no autocast, no
    gradients, new tensors on the CPU. A forked process runs on one thread, and stays on it."""
    if forked() and torch.get_num_threads() != 1:
        torch.set_num_threads(1)
    with ExitStack() as open_:
        if torch.is_inference_mode_enabled():  # what is made in it can't be changed outside
            open_.enter_context(torch.inference_mode(False))
        if torch.get_default_device().type != "cpu":
            open_.enter_context(torch.device("cpu"))
        open_.enter_context(torch.no_grad())
        for kind in ("cpu", "cuda"):
            open_.enter_context(torch.autocast(kind, enabled=False))
        open_.enter_context(fp32_products())
        yield


def forked() -> bool:
    """Whether this process was forked after we were imported.

    Torch's threads do not exist in it, and work that is shared out to them waits for ever.
    """
    return os.getpid() != _IMPORTED_IN


def threads_here(threads: int) -> int:
    """The number that is asked for; one, with a warning, in a forked process."""
    if threads == 1 or not forked():
        return threads
    warnings.warn(
        f"threads={threads}: this process was forked, and torch's threads do not exist in it: "
        "ioi_fast runs on one. The start methods 'spawn' and 'forkserver' have them.",
        stacklevel=5,
    )
    return 1
