"""TransformerLens 3.9 on a checkpoint, asked line by line; run by an interpreter that has it.

Reads one JSON request a line and answers with one: `passes` times full forward passes, `path_patch`
and `ablate` are hook-based interventions as their users write them, both runs cached.
"""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from pathlib import Path

import numpy
import torch
from torch import Tensor
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights
from transformers import GPT2LMHeadModel


class Worker:
    """A model, prompts and the caches of both runs."""

    def __init__(self, checkpoint: str, prompts: str, device: str = "cpu") -> None:
        theirs = GPT2LMHeadModel.from_pretrained(checkpoint, dtype=torch.float32)
        config = theirs.config
        self.model = HookedTransformer(
            HookedTransformerConfig(
                n_layers=config.n_layer,
                d_model=config.n_embd,
                n_ctx=config.n_positions,
                d_head=config.n_embd // config.n_head,
                n_heads=config.n_head,
                d_mlp=config.n_inner or 4 * config.n_embd,
                d_vocab=config.vocab_size,
                act_fn="gelu_new",
                eps=config.layer_norm_epsilon,
                normalization_type="LN",
                device=device,
            )
        )
        weights = convert_gpt2_weights(theirs, self.model.cfg)
        self.model.load_state_dict(weights, strict=False)
        with numpy.load(prompts) as file:
            names = ("orig", "new", "end", "answers", "wrong_answers")
            for name in names:
                setattr(self, name, torch.from_numpy(file[name]).to(device))
        self.device, self.row = device, torch.arange(len(self.orig), device=device)
        self.caches: tuple | None = None
        self.base: Tensor | None = None

    def passes(self, count: int) -> dict:
        """Seconds of so many full passes with logits: no hook, no cache."""
        begun = time.perf_counter()
        for _ in range(count):
            self.model(self.orig)
        return {"seconds": time.perf_counter() - begun}

    def path_patch(self, sender: list[int], receivers: list, at: list[int]) -> dict:
        """Values of one sender [N] and the seconds of its passes; the caches are free.

        Heads are frozen, MLPs recomputed; receivers are (layer, head, "q" | "k" | "v"), none for
        the logits.
        """
        new, orig = self._caches()
        at, begun = torch.tensor(at, device=self.device), time.perf_counter()
        kept: dict[str, Tensor] = {}
        direct = self._run(self._direct(new, orig, sender, at, receivers, kept))
        if receivers:
            hooks = []
            for layer, head, site in receivers:
                name = f"blocks.{layer}.attn.hook_{site}"
                hooks.append((name, partial(_put, head=head, at=at, row=self.row, kept=kept)))
            direct = self._run(hooks)
        return {
            "values": (direct - self.base).tolist(),
            "seconds": time.perf_counter() - begun,
        }

    def ablate(self, heads: dict[str, list[int]], means: str) -> dict:
        """Metric [N] when heads live only where they are named, elsewhere at means; its seconds."""
        with numpy.load(means) as file:
            table = {int(n): torch.from_numpy(file[n]).to(self.device) for n in file}
        hooks = []
        for layer, mean_NTHK in table.items():
            dead_NTH = torch.ones(mean_NTHK.shape[:3], dtype=torch.bool, device=self.device)
            for name, at in heads.items():
                own, head = map(int, name.split("."))
                if own == layer:
                    dead_NTH[self.row, torch.tensor(at, device=self.device), head] = False
            hook = partial(_replace, where=dead_NTH[..., None], value=mean_NTHK)
            hooks.append((f"blocks.{layer}.attn.hook_z", hook))
        begun = time.perf_counter()
        metric = self._run(hooks)
        return {"values": metric.tolist(), "seconds": time.perf_counter() - begun}

    def _caches(self) -> tuple:
        if self.caches is None:
            names = ("hook_z", "hook_q", "hook_k", "hook_v")
            wanted = lambda name: name.endswith(names)  # noqa: E731
            _, new = self.model.run_with_cache(self.new, names_filter=wanted)
            logits, orig = self.model.run_with_cache(self.orig, names_filter=wanted)
            self.caches, self.base = (new, orig), self._metric(logits)
        return self.caches

    def _direct(self, new, orig, sender, at, receivers, kept) -> list:
        """Pass C: every z frozen but the sender's, which is the new run's at these positions."""
        layer, head = sender
        hooks = []
        for other in range(self.model.cfg.n_layers):
            name = f"blocks.{other}.attn.hook_z"
            z = orig[name]
            if other == layer:
                z = z.clone()
                z[self.row, at, head] = new[name][self.row, at, head]
            hooks.append((name, partial(_freeze, value=z)))
        for name in {f"blocks.{layer}.attn.hook_{site}" for layer, _, site in receivers}:
            hooks.append((name, partial(_keep, kept=kept)))
        return hooks

    def _run(self, hooks: list) -> Tensor:
        return self._metric(self.model.run_with_hooks(self.orig, fwd_hooks=hooks))

    def _metric(self, logits: Tensor) -> Tensor:
        at_end = logits[self.row, self.end]
        return at_end[self.row, self.answers] - at_end[self.row, self.wrong_answers]


def _freeze(z: Tensor, hook: object, value: Tensor) -> Tensor:
    return value


def _replace(z: Tensor, hook: object, where: Tensor, value: Tensor) -> Tensor:
    return torch.where(where, value, z)


def _keep(value: Tensor, hook: object, kept: dict) -> None:
    kept[hook.name] = value.clone()


def _put(value: Tensor, hook: object, head: int, at: Tensor, row: Tensor, kept: dict) -> Tensor:
    value = value.clone()
    value[row, at, head] = kept[hook.name][row, at, head]
    return value


@torch.inference_mode()
def main() -> None:
    worker = Worker(*map(str, map(Path, sys.argv[1:3])))
    print(json.dumps({"threads": torch.get_num_threads()}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(getattr(worker, request.pop("do"))(**request)), flush=True)


if __name__ == "__main__":
    main()
