"""The jobs J1 to J6 on a device: what each runs, which of its values are checked, and their truth.

A sample is drawn with seed 0. Its truth is the reference backend's in float64 on the host.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ioi_fast import GPT2, Circuit, PromptPairs, ablate, explain, pair_sweep, path_patch
from ioi_fast.benchmarks.gpu.setting import DRY, Setting
from ioi_fast.benchmarks.jobs import CIRCUIT, PATH_JOBS, cells, knock_out_sets, prompts
from ioi_fast.benchmarks.roofline import Work
from ioi_fast.calls.explain import Plan

SENDERS, SETS, PAIRS = 8, 50, 50  # that are checked
EXACT = {"backend": "reference", "precision": "fp64"}


@dataclass(frozen=True, slots=True)
class Job:
    """A call on some prompts, and a sample of what it gives."""

    name: str
    call: Callable[..., object]
    pairs: PromptPairs
    asked: dict[str, object]
    sample: Sequence[object]  # senders, sets, or cells of a sweep over pairs
    truth: Callable[[GPT2], Tensor] = field(repr=False)  # of the sample, [S, N]
    chosen: Callable[[Tensor], Tensor] = field(repr=False)  # values of a whole result -> the same
    variants: int = 1

    def run(self, model: GPT2, precision: str, **more: object) -> Tensor:
        """Values of the whole job on the kernels, on the host."""
        if self.call is _logits:
            return _logits(model, self.pairs)
        how = {"backend": "triton", "precision": precision}
        return self.call(model, self.pairs, **{**self.asked, **how, **more}).values

    def plan(self, model: GPT2) -> Plan | None:
        """What the engine means to do; the forward pass has none."""
        if self.call is _logits:
            return None
        return explain(self.call, model, self.pairs, **self.asked)

    def work(self, host: GPT2) -> Work:
        """FLOPs that the definition makes unavoidable, and bytes of differences."""
        plan, config = self.plan(host), host.config
        if plan is not None:
            return Work.of(plan, config)
        rows = self.pairs.orig.numel()
        flops = 2 * rows * (12 * config.n_layer * config.n_embd**2)
        flops += 2 * rows * config.n_embd * config.vocab_size
        return Work(flops, 0, 4 * rows * config.vocab_size)


def jobs_of(setting: Setting) -> Iterator[Job]:
    """Those that were asked for, in order."""
    for name in setting.jobs:
        yield job(name, setting.dry)


def job(name: str, dry: bool = False) -> Job:
    """One job by name, on GPT-2 small's shapes or on a dry run's small model."""
    if name in PATH_JOBS:
        return _path_patch(name, dry)
    return {"J4": _sets, "J5": _pairs, "J6": _forward}[name](dry)


def _prompts(N: int, dry: bool) -> PromptPairs:
    # The jobs' roles need 11 tokens.
    return prompts(1, 12, 61) if dry else prompts(N, 16)


def _drawn(count: int, of: int) -> list[int]:
    return sorted(random.Random(0).sample(range(of), min(count, of)))


def _path_patch(name: str, dry: bool) -> Job:
    receivers, position, _, N, _ = PATH_JOBS[name]
    pairs = _prompts(N, dry)
    if dry and receivers != "logits":
        receivers = [f"1.1.{receivers[0][-1]}"]
    asked = {"receivers": receivers, "position": position}
    L, H = DRY if dry else (12, 12)
    places = _drawn(3 if dry else SENDERS, L * H)
    senders = [f"{place // H}.{place % H}" for place in places]

    def truth(host: GPT2) -> Tensor:
        return path_patch(host, pairs, senders, **asked, **EXACT).values

    def chosen(values: Tensor) -> Tensor:
        return values[places]

    return Job(name, path_patch, pairs, asked, senders, truth, chosen, L * H)


def _sets(dry: bool) -> Job:
    pairs = _prompts(16, dry)
    if dry:
        circuit = Circuit({"0.1": "S2", "1.0": "END"})
        sets = [{"0.1": "S2"}, {"1.0": "END"}, {"0.1": "S2", "1.0": "END"}]
    else:
        circuit, sets = Circuit(CIRCUIT), knock_out_sets(2000)
    places = _drawn(SETS, len(sets))
    some = [sets[place] for place in places]

    def truth(host: GPT2) -> Tensor:
        return ablate(host, pairs, some, base=circuit, **EXACT).values

    def chosen(values: Tensor) -> Tensor:
        return values[places]

    asked = {"variants": sets, "base": circuit}
    return Job("J4", ablate, pairs, asked, some, truth, chosen, len(sets))


def _pairs(dry: bool) -> Job:
    pairs, (L, H) = _prompts(8, dry), (DRY if dry else (12, 12))
    some = cells(L, H, 4 if dry else PAIRS)

    def truth(host: GPT2) -> Tensor:
        return torch.stack([one_pair(host, pairs, cell, **EXACT) for cell in some])

    def chosen(values: Tensor) -> Tensor:
        return torch.stack([values[cell] for cell in some])

    variants = 3 * H * H * L * (L - 1) // 2
    return Job("J5", pair_sweep, pairs, {"per_prompt": True}, some, truth, chosen, variants)


def one_pair(model: GPT2, pairs: PromptPairs, cell: tuple, **how: object) -> Tensor:
    """Values [N] of a direct path from one head to an input of another, by `path_patch`."""
    site, a, b, c, d = cell
    receivers = [f"{c}.{d}.{'qkv'[site]}"]
    return path_patch(model, pairs, [f"{a}.{b}"], receivers, None, "nothing", **how).values[0]


def _forward(dry: bool) -> Job:
    pairs = _prompts(16, dry)

    def truth(host: GPT2) -> Tensor:
        return _logits(host.to(dtype=torch.float64), pairs)[:, -1]

    def chosen(values: Tensor) -> Tensor:
        return values[:, -1]

    return Job("J6", _logits, pairs, {}, range(len(pairs)), truth, chosen)


def _logits(model: GPT2, pairs: PromptPairs) -> Tensor:
    return model(pairs.orig).cpu()
