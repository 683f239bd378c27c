"""Calls of all kinds drawn at random: shapes, prompts, senders, receivers, sites, knock-outs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import torch

from ioi_fast import (
    GPT2,
    Circuit,
    GPT2Config,
    PromptPairs,
    ablate,
    activation_patch,
    pair_sweep,
    path_patch,
)

POSITIONS = ["END", "S2", "S1", "all"]
SITES = ["z", "q", "k", "v", "resid_pre", "resid_mid", "attn_out", "mlp_out"]


@dataclass(frozen=True, slots=True)
class Call:
    """A call, its model and prompts, two of these prompts, and its other arguments."""

    function: Callable
    model: GPT2
    pairs: PromptPairs
    few: PromptPairs
    asked: dict

    def __str__(self) -> str:
        shape = f"{self.model.config.n_layer} layers of {self.model.config.n_embd}"
        return f"{self.function.__name__} of {list(self.pairs.orig.shape)}, {shape}: {self.asked}"


def _free_energy(logits: torch.Tensor, _prompt: torch.Tensor) -> torch.Tensor:
    return logits.logsumexp(-1)


@functools.cache
def random_model(layers: int, heads: int, width: int, vocabulary: int) -> GPT2:
    shape = {"n_layer": layers, "n_head": heads, "n_embd": width, "n_positions": 64}
    return GPT2.random(GPT2Config(**shape, vocab_size=vocabulary), seed=0)


def random_call(seed: int) -> Call:
    """The call of a seed."""
    random = Random(seed)
    heads, width = random.choice([(4, 256), (8, 256), (8, 512), (12, 768)])
    vocabulary = random.choice([400, 400, 5000])
    make = random.choice([_path_patch, _path_patch, _activation_patch, _ablate, _pair_sweep])
    layers, N, T = (
        random.choice([2, 3, 4, 6]),
        random.choice([8, 24, 48]),
        random.choice([8, 16, 24]),
    )
    if make is _pair_sweep:
        layers, N = min(layers, 3), 8  # which is work enough
    model = random_model(layers, heads, width, vocabulary)
    moved = random.random() < 0.25
    pairs = _prompts(random, N, T, moved, vocabulary)
    function, asked = make(random, model.config, moved)
    if function is not pair_sweep and random.random() < 0.3:
        asked["metric"] = random.choice(["kl", "kl", "prob", "rank", _free_energy])
    return Call(function, model, pairs, _some(pairs, 2), asked)


def _prompts(random: Random, N: int, T: int, moved: bool, vocabulary: int) -> PromptPairs:
    """Of equal or unlike lengths; new ones differ in few tokens or all, and may stand elsewhere."""
    generator = torch.Generator().manual_seed(random.randrange(10**6))

    def tokens() -> torch.Tensor:
        return torch.randint(vocabulary, (N, T), generator=generator)

    orig, share = tokens(), random.choice([0.05, 0.2, 1.0])
    new = torch.where(torch.rand(N, T, generator=generator) < share, tokens(), orig)
    end = torch.full((N,), T - 1)
    shorter = random.choice([0, 0, 3, T // 2])
    if shorter:
        end[1:] -= torch.randint(shorter, (N - 1,), generator=generator)
    positions = {"END": end, "S2": end - 2, "S1": torch.full((N,), 2)}
    elsewhere = {"new_positions": {**positions, "S2": end - 3}} if moved else {}
    return PromptPairs(orig, new, orig[:, 0], orig[:, 1], positions=positions, **elsewhere)


def _some(pairs: PromptPairs, count: int) -> PromptPairs:
    first = slice(count)
    return PromptPairs(
        pairs.orig[first],
        pairs.new[first],
        pairs.answers[first],
        pairs.wrong_answers[first],
        positions={name: at[first] for name, at in pairs.positions.items()},
        new_positions={name: at[first] for name, at in pairs.new_roles.items()},
    )


def _head(random: Random, config: GPT2Config, first: int = 0) -> str:
    return f"{random.randrange(first, config.n_layer)}.{random.randrange(config.n_head)}"


def _node(random: Random, config: GPT2Config) -> str:
    if random.random() < 0.7:
        return _head(random, config)
    return f"mlp{random.randrange(config.n_layer)}"


def _nodes(random: Random, config: GPT2Config, count: int) -> dict[str, str | tuple[str, ...]]:
    at: list[str | tuple[str, ...]] = [*POSITIONS, ("S2", "END")]
    return {_node(random, config): random.choice(at) for _ in range(count)}


def _receiver(random: Random, config: GPT2Config) -> str:
    if random.random() < 0.8:
        return f"{_head(random, config, first=1)}.{random.choice('qkv')}"
    return f"mlp{random.randrange(1, config.n_layer)}"


def _path_patch(random: Random, config: GPT2Config, moved: bool) -> tuple[Callable, dict]:
    asked: dict = {}
    if random.random() < 0.5:
        asked["senders"] = sorted({_head(random, config) for _ in range(random.choice([1, 3, 8]))})
    if random.random() < 0.5:
        receivers = {_receiver(random, config) for _ in range(random.choice([1, 2, 3]))}
        asked["receivers"] = sorted(receivers)
        asked["position"] = random.choice(["S2" if moved else None, "S2", "END", "S1"])
    if random.random() < 0.3:
        asked["between"] = "nothing"
    if random.random() < 0.5:
        asked["knock_out"] = _nodes(random, config, random.choice([1, 2, 4]))
        asked["knock_out_source"] = random.choice(["zero", "mean", "new"])
        if moved and asked["knock_out_source"] == "new":
            asked["knock_out"] = _by_role(asked["knock_out"])
    return path_patch, asked


def _activation_patch(random: Random, config: GPT2Config, moved: bool) -> tuple[Callable, dict]:
    positions = ["S2", "END", "S1", *([] if moved else ["each"])]
    return activation_patch, {"site": random.choice(SITES), "position": random.choice(positions)}


def _ablate(random: Random, config: GPT2Config, moved: bool) -> tuple[Callable, dict]:
    sets = [_nodes(random, config, random.choice([1, 2, 5])) for _ in range(random.choice([1, 40]))]
    different = {frozenset(one.items()): one for one in sets}
    asked = {"variants": list(different.values()), "source": random.choice(["zero", "mean", "new"])}
    if random.random() < 0.4:
        share = random.choice([0.3, 1.0])
        heads = {
            f"{layer}.{head}": random.sample(["END", "S2", "S1"], random.choice([1, 1, 1, 2, 3]))
            for layer in range(config.n_layer)
            for head in range(config.n_head)
            if random.random() < share
        }
        asked["base"] = Circuit(heads or {"0.0": "END"})
    if moved and asked["source"] == "new":
        asked.pop("base", None)
        by_role = map(_by_role, asked["variants"])
        asked["variants"] = list({frozenset(one.items()): one for one in by_role}.values())
    return ablate, asked


def _by_role(variant: dict) -> dict:
    """The same at roles alone: new has no value everywhere where a role stands elsewhere."""
    return {node: "END" if role == "all" else role for node, role in variant.items()}


def _pair_sweep(random: Random, config: GPT2Config, moved: bool) -> tuple[Callable, dict]:
    asked: dict = {"inputs": random.sample(["q", "k", "v"], random.choice([1, 3]))}
    if moved or random.random() < 0.4:
        asked["position"] = random.choice(["S2", "END"])
    return pair_sweep, asked
