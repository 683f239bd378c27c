"""TransformerLens on a device, where it is installed: one intervention at a time, as its users do.

The workers are those that the CPU's benchmarks run in environments of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy
import torch

from ioi_fast.benchmarks.gpu.jobs.job import Job
from ioi_fast.benchmarks.gpu.peers.plain_gpt2 import PlainGPT2
from ioi_fast.benchmarks.gpu.setting import Setting

PACKAGE = "transformer_lens"
# What each job is asked of: HookedTransformer, or the direct paths of version 4.
WORKERS = {"J1": "lens_worker", "J4": "lens_worker", "J5": "lens4_worker"}


def why_not(name: str) -> str | None:
    """Why TransformerLens can't do a job here, or None."""
    if find_spec(PACKAGE) is None:
        return f"{PACKAGE} is not installed"
    other = f"{WORKERS[name]}.py asks another version of {PACKAGE}"
    try:
        worker = import_module(f"ioi_fast.benchmarks.{WORKERS[name]}")
    except ImportError as problem:
        return f"{other}: {problem}"
    if name == "J5" and not hasattr(worker.patching, "_make_direct_path_hook"):
        return f"{other}: here it has no direct paths"
    return None


class Lens:
    """A worker with a job's model and prompts; every answer has values and seconds."""

    def __init__(self, worker: Any, job: Job, means: str) -> None:
        self.worker, self.job, self.means = worker, job, means

    def answer(self, item: object) -> dict:
        """One sender, set or pair: values [N], seconds until they are on the host."""
        if self.job.name == "J5":
            site, a, b, c, d = item
            return self.worker.pair([a, b], [c, d], "qkv"[site])
        if self.job.name == "J4":
            kept = {str(head): role for head, (role,) in self.job.asked["base"].roles.items()}
            return self.worker.ablate(self._at({h: r for h, r in kept.items() if h not in item}),
                                      self.means)  # fmt: skip
        end = self.job.pairs.end.tolist()
        return self.worker.path_patch([int(part) for part in item.split(".")], [], end)

    def _at(self, kept: dict[str, str]) -> dict[str, list[int]]:
        return {head: self.job.pairs.positions[role].tolist() for head, role in kept.items()}

    def values(self, item: object) -> torch.Tensor:
        """The same as a tensor, [N]."""
        return torch.tensor(self.answer(item)["values"])

    def base(self) -> torch.Tensor:
        """What values are to be taken from, [N]: a circuit with nothing knocked out, or zero."""
        zero = torch.zeros(len(self.job.pairs))
        return self.values({}) if self.job.name == "J4" else zero


@contextmanager
def lens(setting: Setting, job: Job) -> Iterator[Lens]:
    """A worker in this process, on the setting's device."""
    from ioi_fast.benchmarks.transformers_model import as_transformers

    made = import_module(f"ioi_fast.benchmarks.{WORKERS[job.name]}").Worker
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        as_transformers(setting.host).save_pretrained(folder / "model")
        columns = ("orig", "new", "end", "answers", "wrong_answers")
        prompts = {name: getattr(job.pairs, name).numpy() for name in columns}
        numpy.savez(folder / "prompts.npz", **prompts)
        clean = PlainGPT2.of(setting.host, "fp32").clean(job.pairs.new)
        means = [layer.z.mean(0).expand(len(job.pairs), -1, -1, -1) for layer in clean]
        numpy.savez(folder / "means.npz", **{str(n): one.numpy() for n, one in enumerate(means)})
        files = str(folder / "model"), str(folder / "prompts.npz")
        yield Lens(made(*files, str(setting.device)), job, str(folder / "means.npz"))
