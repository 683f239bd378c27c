"""The paper's path patching in TransformerLens, by hooks; run by an interpreter that has it.

Reads a checkpoint directory and a request (.npz: orig, new [N, T], end, answers, wrong_answers [N],
senders [S, 2], and for every sweep NAME: NAME_at [N] and NAME_receivers [R, 3], each layer, head
and 0, 1 or 2 for its query, key or value; R = 0 for the logits) and writes .npz: base [N], each
NAME [S, N], the change of the logit difference, and the version. Four passes: the new prompts (A),
the orig ones (B), orig with every head's z kept but the sender's and all MLPs computed anew (C),
orig with the receivers as they were in C (D).
"""

from __future__ import annotations

import argparse
from importlib.metadata import version
from pathlib import Path

import numpy
import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge


class Paths:
    """Both clean runs of a model (A and B), and patched runs beside them."""

    def __init__(self, model: TransformerBridge, asked: dict[str, Tensor]) -> None:
        self.model, self.asked = model, asked
        self.row = torch.arange(len(asked["orig"]))
        _, self.new = model.run_with_cache(asked["new"])
        logits, self.orig = model.run_with_cache(asked["orig"])
        self.base = self._metric(logits)

    def sweep(self, receivers: Tensor, at: Tensor) -> Tensor:
        """Change of the metric for every sender, [S, N]."""
        senders = self.asked["senders"].tolist()
        return torch.stack([self._one(*sender, receivers, at) for sender in senders]) - self.base

    def _one(self, layer: int, head: int, receivers: Tensor, at: Tensor) -> Tensor:
        kept: dict[str, Tensor] = {}
        named = [(_name(one, "qkv"[site]), other) for one, other, site in receivers.tolist()]

        def keep(value: Tensor, hook: object) -> Tensor:
            kept[hook.name] = value.clone()
            return value

        hooks = [(name, keep) for name in {name for name, _ in named}]
        for one in range(self.model.cfg.n_layers):
            name = _name(one, "z")
            frozen = self.orig[name].clone()
            if one == layer:
                frozen[self.row, at, head] = self.new[name][self.row, at, head]
            hooks.append((name, lambda z, hook, frozen=frozen: frozen))
        direct = self._run(hooks)
        if not named:
            return direct

        def put(value: Tensor, hook: object, head: int) -> Tensor:
            value = value.clone()
            value[self.row, at, head] = kept[hook.name][self.row, at, head]
            return value

        return self._run(
            [(name, lambda value, hook, head=head: put(value, hook, head)) for name, head in named]
        )

    def _run(self, hooks: list) -> Tensor:
        return self._metric(self.model.run_with_hooks(self.asked["orig"], fwd_hooks=hooks))

    def _metric(self, logits: Tensor) -> Tensor:
        at_end = logits[self.row, self.asked["end"]]
        answers, wrong = self.asked["answers"], self.asked["wrong_answers"]
        return at_end[self.row, answers] - at_end[self.row, wrong]


def _name(layer: int, site: str) -> str:
    return f"blocks.{layer}.attn.hook_{site}"


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("request", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float64")
    chosen = parser.parse_args()
    dtype = getattr(torch, chosen.dtype)
    torch.set_default_dtype(dtype)
    model = TransformerBridge.boot_transformers(str(chosen.checkpoint), device="cpu", dtype=dtype)
    model.enable_compatibility_mode(no_processing=True)
    with numpy.load(chosen.request) as file:
        asked = {name: torch.from_numpy(file[name]) for name in file.files}
    paths = Paths(model, asked)
    found = {"base": paths.base}
    for name in [one.removesuffix("_at") for one in asked if one.endswith("_at")]:
        found[name] = paths.sweep(asked[f"{name}_receivers"], asked[f"{name}_at"])
    arrays = {name: values.numpy() for name, values in found.items()}
    numpy.savez(chosen.output, version=version("transformer-lens"), **arrays)


if __name__ == "__main__":
    main()
