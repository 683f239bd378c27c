"""Knock-outs of a circuit in TransformerLens, by hooks; run by an interpreter that has it.

Reads a checkpoint directory and a request (.npz: orig, new [N, T], end, answers, wrong_answers,
forms [N], kept [L, H, N] the token at which the circuit keeps a head or −1, sets [P, L, H] bool)
and writes .npz: of_model, of_circuit [N], in_model, in_circuit [P, N], logit differences. A head is
knocked out by the mean of its z over the new prompts of the same form, at the same token.
"""

from __future__ import annotations

import argparse
from importlib.metadata import version
from pathlib import Path

import numpy
import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("request", type=Path)
    parser.add_argument("output", type=Path)
    chosen = parser.parse_args()
    model = TransformerBridge.boot_transformers(
        str(chosen.checkpoint), device="cpu", dtype=torch.float32
    )
    model.enable_compatibility_mode(no_processing=True)
    with numpy.load(chosen.request) as file:
        asked = {name: torch.from_numpy(file[name]) for name in file.files}
    with torch.no_grad():
        found = evaluations(model, asked)
    arrays = {name: values.numpy() for name, values in found.items()}
    numpy.savez(chosen.output, version=version("transformer-lens"), **arrays)


def evaluations(model: TransformerBridge, asked: dict[str, Tensor]) -> dict[str, Tensor]:
    """All four kinds of runs."""
    means = mean_table(model, asked)
    T = asked["orig"].shape[1]
    at_role = torch.arange(T) == asked["kept"][..., None]  # [L, H, N, T]
    outside = ~at_role
    found = {
        "of_model": run(model, asked, means, torch.zeros_like(outside)),
        "of_circuit": run(model, asked, means, outside),
    }
    of_sets = [one[..., None, None] & at_role for one in asked["sets"]]
    found["in_model"] = torch.stack([run(model, asked, means, one) for one in of_sets])
    inside = [run(model, asked, means, outside | one) for one in of_sets]
    found["in_circuit"] = torch.stack(inside)
    return found


def mean_table(model: TransformerBridge, asked: dict[str, Tensor]) -> list[Tensor]:
    """Mean z of every layer by prompt's form and token, [N, T, H, K] each."""
    _, cache = model.run_with_cache(asked["new"])
    there = torch.arange(asked["new"].shape[1]) <= asked["end"][:, None]
    tables = []
    for layer in range(model.cfg.n_layers):
        z = cache[f"blocks.{layer}.attn.hook_z"]
        table = torch.zeros_like(z)
        for form in asked["forms"].unique():
            mine = asked["forms"] == form
            weights = there[mine].float()[:, :, None, None]
            table[mine] = (z[mine] * weights).sum(0) / weights.sum(0).clamp(min=1)
        tables.append(table)
    return tables


def run(
    model: TransformerBridge, asked: dict[str, Tensor], means: list[Tensor], where: Tensor
) -> Tensor:
    """Logit difference at END with heads knocked out where [L, H, N, T] says, [N]."""

    def replaced(layer: int):
        mask = where[layer].permute(1, 2, 0)[..., None]
        return lambda z, hook: torch.where(mask, means[layer], z)

    hooks = [
        (f"blocks.{layer}.attn.hook_z", replaced(layer))
        for layer in range(model.cfg.n_layers)
        if where[layer].any()
    ]
    logits = model.run_with_hooks(asked["orig"], fwd_hooks=hooks)
    rows = torch.arange(len(logits))
    at_end = logits[rows, asked["end"]]
    return at_end[rows, asked["answers"]] - at_end[rows, asked["wrong_answers"]]


if __name__ == "__main__":
    main()
