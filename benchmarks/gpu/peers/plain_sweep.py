"""What the jobs in plain torch have in common: their prompts on the device, and how many variants
go through the layers together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ioi_fast import PromptPairs
from ioi_fast.benchmarks.gpu.jobs.job import Job
from ioi_fast.benchmarks.gpu.peers.plain_gpt2 import PlainGPT2

# Kernels index with 32 bits and are at their full rate long before: no more hidden values at once.
MOST_HIDDEN = 2**30
MOST_SEQUENCES = 60_000  # attention's grid has no more in one direction
ROWS_ON_CPU = 4096
SHARE_OF_MEMORY = 0.7

Values = Callable[[], Tensor]


class Sweep(ABC):
    """A job as pieces, some of which go through the layers together."""

    each = 1  # variants of a piece

    def __init__(self, plain: PlainGPT2, job: Job) -> None:
        check_prompts(job.pairs)
        self.plain, self.job = plain, job
        device = plain.wte.device
        self.orig, self.new = job.pairs.orig.to(device), job.pairs.new.to(device)
        answers, wrong = job.pairs.answers.to(device), job.pairs.wrong_answers.to(device)
        self.towards_ND = plain.unembed[answers] - plain.unembed[wrong]

    @property
    @abstractmethod
    def pieces(self) -> int:
        """How many there are."""

    @property
    def tokens(self) -> int:
        """Of a prompt, that are computed for a variant."""
        return self.orig.shape[1]

    @abstractmethod
    def sampled(self) -> list[int]:
        """The pieces that hold the job's sample, ascending."""

    @abstractmethod
    def prepared(self, pieces: Sequence[int], together: int) -> Values:
        """What gives the values of some pieces, in the shape of the whole job's and else zero.

        Indices of all kinds are made here, so that a call neither waits for the device nor copies
        to it. Both clean runs are part of the call.
        """

    def guess(self) -> int:
        """How many pieces should fit together."""
        config, device = self.plain.config, self.orig.device
        sequences = self.each * len(self.orig)
        rows = ROWS_ON_CPU
        if device.type == "cuda":
            free = SHARE_OF_MEMORY * torch.cuda.mem_get_info(device)[0]
            a_row = self.plain.wte.itemsize * (14 * config.n_embd + 3 * config.d_mlp)
            rows = int(min(MOST_HIDDEN // config.d_mlp, free // a_row))
        most = min(rows // (sequences * self.tokens), MOST_SEQUENCES // sequences, self.pieces)
        return max(1, most)

    def index(self, places: Sequence[int] | Tensor) -> Tensor:
        """Places, or a tensor, on the device."""
        if not isinstance(places, Tensor):
            places = torch.tensor(list(places), dtype=torch.int64)
        return places.to(self.orig.device)


def check_prompts(pairs: PromptPairs) -> None:
    """Raises ValueError unless all prompts end at one token, where new ones have it too."""
    if pairs.new_positions is not None or (pairs.end != pairs.orig.shape[1] - 1).any():
        raise ValueError("pairs: the peers' prompts must have their END at one token, as new does")


def chunks(places: Sequence, size: int) -> Iterator[Sequence]:
    """Places in order, so many at a time."""
    for begin in range(0, len(places), size):
        yield places[begin : begin + size]


def fitting(run: Callable[[int], Tensor], guess: int) -> tuple[int, Tensor]:
    """The largest size, halved from a guess, with which a run does not run out of memory, and what
    it gives; raises torch.OutOfMemoryError when even one does not fit."""
    size = guess
    while True:
        try:
            return size, run(size)
        except torch.OutOfMemoryError:
            if size == 1:
                raise
        # Behind the handler, whose traceback holds what the run had made.
        size //= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
