"""What the parts of a run have in common: where it runs, on which model, and what was asked for."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from ioi_fast import GPT2, GPT2Config
from ioi_fast.benchmarks.gpu.machine import facts
from ioi_fast.engine.choose_ops import why_not_triton
from ioi_fast.kernels.cache_folders import work_folder

JOBS = ("J1", "J1 at N=100", "J2", "J3", "J4", "J5", "J6")
PRECISIONS = ("fp32", "tf32", "bf16")
DRY = (2, 2)  # layers, and heads of each, of a dry run's model


@dataclass(frozen=True)
class Setting:
    """A run as it was asked for; models are made when they are first used.

    A dry run takes a small model, Triton's interpreter in the GPU's place, and no times.
    """

    out: Path
    dry: bool = False
    gpu: str = "cuda"
    jobs: tuple[str, ...] = JOBS
    precisions: tuple[str, ...] = PRECISIONS
    tune: bool = False

    def to_json(self) -> str:
        """As one line for a process that works on the same run."""
        return json.dumps({**asdict(self), "out": str(self.out)})

    @classmethod
    def of_json(cls, line: str) -> Setting:
        """What `to_json` wrote."""
        found = json.loads(line)
        lists = {name: tuple(found[name]) for name in ("jobs", "precisions")}
        return cls(**{**found, **lists, "out": Path(found["out"])})

    @property
    def work(self) -> Path:
        """A folder for what is no result: truths, and what processes say of errors."""
        return work_folder() / "gpu"

    @property
    def device(self) -> torch.device:
        """Where the kernels run: the GPU, or the host in a dry run."""
        return torch.device("cpu" if self.dry else self.gpu)

    @cached_property
    def host(self) -> GPT2:
        """GPT-2 small's shapes, or a small model, with random weights on the host."""
        if self.dry:
            L, H = DRY
            shape = {"n_layer": L, "n_head": H, "n_embd": 32, "n_positions": 16}
            return GPT2.random(GPT2Config(**shape, vocab_size=61), seed=0)
        return GPT2.random(GPT2Config(), seed=0)

    @cached_property
    def model(self) -> GPT2:
        """The same weights on the device."""
        return self.host if self.dry else self.host.to(device=self.gpu)

    @cached_property
    def machine(self) -> dict[str, object]:
        """The device, the host and what runs on them."""
        return facts(self.device)

    @cached_property
    def given(self) -> dict[tuple[str, str], Tensor]:
        """Values that jobs have given in this process, by name and precision."""
        return {}

    @cached_property
    def no_kernels(self) -> str | None:
        """Why Triton kernels can't run here, or None."""
        return why_not_triton(self.device)
