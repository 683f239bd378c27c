"""The paper's three path experiments for comparisons with other code: what is asked, and ours."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
from checkpoints import lively_model, write
from small_models import ragged_pairs
from torch import Tensor

from ioi_fast import GPT2, PromptPairs, path_patch

SMALL = {"n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 600, "n_positions": 32}


@dataclass(frozen=True, slots=True)
class Experiment:
    """Receivers of a path patch and the role at which it and the sender are patched (or all)."""

    receivers: tuple[str, ...]
    position: str | None

    def ours(self, model: GPT2, pairs: PromptPairs, senders: list[str], **settings: object):
        """What `path_patch` says, in any precision and by any backend."""
        receivers = list(self.receivers) or "logits"
        return path_patch(model, pairs, senders, receivers, self.position, **settings)

    @property
    def numbers(self) -> Tensor:
        """Receivers as [R, 3]: layer, head, and 0, 1 or 2 for query, key or value."""
        parts = [one.split(".") for one in self.receivers]
        rows = [[int(layer), int(head), "qkv".index(site)] for layer, head, site in parts]
        return torch.tensor(rows, dtype=torch.int64).view(-1, 3)


EXPERIMENTS = {
    "E1": Experiment((), "END"),
    "E6": Experiment(("9.9.q", "9.6.q", "10.0.q"), "END"),
    "E11": Experiment(("7.3.v", "7.9.v", "8.6.v", "8.10.v"), "S2"),
}


def checkpoint(folder: Path) -> Path:
    """Random weights of GPT-2 small's shapes, with a small vocabulary."""
    return write(folder, lively_model(5, **SMALL))


def prompts(n: int = 4, T: int = 9) -> PromptPairs:
    """Prompts of three lengths, each a form, with the roles of the published circuit."""
    drawn = ragged_pairs(n, T, vocab_size=500, seed=7)
    at = {**drawn.positions, "S1+1": drawn.positions["S1"] + 1}
    given = (drawn.orig, drawn.new, drawn.answers, drawn.wrong_answers)
    return PromptPairs(*given, positions=at, forms=torch.arange(n) % 3)


def drawn_senders(each: int = 2) -> list[str]:
    """So many heads of every layer: before, beside and behind all receivers."""
    draw = random.Random(0).sample
    return [f"{layer}.{head}" for layer in range(12) for head in sorted(draw(range(12), each))]


def request(
    path: Path, pairs: PromptPairs, senders: list[str], earlier: int = 0, **more: Tensor
) -> Path:
    """Writes what a script is asked for; `earlier` moves all positions, as a fault would."""
    columns = {"orig": pairs.orig, "new": pairs.new, "end": pairs.end}
    columns |= {"answers": pairs.answers, "wrong_answers": pairs.wrong_answers}
    columns["senders"] = torch.tensor([[int(part) for part in one.split(".")] for one in senders])
    for name, experiment in EXPERIMENTS.items():
        columns[f"{name}_at"] = pairs.positions[experiment.position] - earlier
        columns[f"{name}_receivers"] = experiment.numbers
    columns |= more
    numpy.savez(path, **{name: column.numpy() for name, column in columns.items()})
    return path
