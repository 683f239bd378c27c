"""TransformerLens' direct-path sweep on a checkpoint; run by an interpreter that has it.

Reads a checkpoint directory and prompts (.npz: clean, corrupted [N, T] and end, answers,
wrong_answers [N]) and writes .npz: q, k, v [L, H, L, H, N] and logits [L, H, N], the logit
difference with the clean write of sender (l, h) added to that input, base [N] that of the corrupted
run, and the version. The base run is the corrupted one.
"""

from __future__ import annotations

import argparse
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy
import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.patching import get_act_patch_direct_path_all_sources


class Prompt(NamedTuple):
    """One prompt without padding, both as [1, END + 1] tokens, and its answers."""

    clean: Tensor
    corrupted: Tensor
    answer: int
    wrong_answer: int

    def logit_diff(self, logits: Tensor) -> Tensor:
        """Answer − wrong answer at END of logits [1, T, V], a scalar."""
        return logits[0, -1, self.answer] - logits[0, -1, self.wrong_answer]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("prompts", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--dtype", choices=("float32", "float64"), required=True)
    parser.add_argument("--process-weights", action="store_true")
    chosen = parser.parse_args()
    dtype = getattr(torch, chosen.dtype)
    torch.set_default_dtype(dtype)  # the sweep stores its results in the default type
    model = TransformerBridge.boot_transformers(str(chosen.checkpoint), device="cpu", dtype=dtype)
    model.enable_compatibility_mode(no_processing=not chosen.process_weights)
    with torch.no_grad():
        found = [sweep(model, prompt) for prompt in read(chosen.prompts)]
    arrays = {name: torch.stack([one[name] for one in found], -1).numpy() for name in found[0]}
    numpy.savez(chosen.output, version=version("transformer-lens"), **arrays)


def read(path: Path) -> list[Prompt]:
    """Each prompt up to its END: what stands behind is padding."""
    with numpy.load(path) as file:
        columns = [torch.from_numpy(file[name]) for name in ("clean", "corrupted")]
        integers = [file[name].tolist() for name in ("end", "answers", "wrong_answers")]
    return [
        Prompt(clean[None, : end + 1], corrupted[None, : end + 1], answer, wrong_answer)
        for clean, corrupted, end, answer, wrong_answer in zip(*columns, *integers, strict=True)
    ]


def sweep(model: TransformerBridge, prompt: Prompt) -> dict[str, Tensor]:
    """All results of one prompt: alone, since the sweep takes a metric of one number only."""
    base, corrupted = model.run_with_cache(prompt.corrupted)
    _, clean = model.run_with_cache(prompt.clean)
    found = {"base": prompt.logit_diff(base), "logits": to_logits(model, prompt, clean, corrupted)}
    for component in ("q", "k", "v"):
        found[component] = get_act_patch_direct_path_all_sources(
            model,
            prompt.corrupted,
            clean,
            corrupted,
            prompt.logit_diff,
            component=component,
            verbose=False,
        )
    return found


def to_logits(model: TransformerBridge, prompt: Prompt, clean: object, corrupted: object) -> Tensor:
    """The same write added to what the final LayerNorm reads, [L, H]; the sweep leaves it out."""
    last = f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"
    found = torch.zeros(model.cfg.n_layers, model.cfg.n_heads)
    for layer, block in enumerate(model.blocks):
        z = f"blocks.{layer}.attn.hook_z"
        for head in range(model.cfg.n_heads):
            write = (clean[z] - corrupted[z])[:, :, head] @ block.attn.W_O[head]
            hooks = [(last, lambda resid, hook, write=write: resid + write)]
            logits = model.run_with_hooks(prompt.corrupted, fwd_hooks=hooks)
            found[layer, head] = prompt.logit_diff(logits)
    return found


if __name__ == "__main__":
    main()
