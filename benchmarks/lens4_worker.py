"""TransformerLens 4.3's direct-path patching on a checkpoint, one pair of heads at a time.

Reads one JSON request a line and answers with one. A pair is what its sweep over all sources runs
for it: one forward pass with the sender's new − orig write added to one input of the receiver.
"""

from __future__ import annotations

import json
import sys
import time

import numpy
import torch
from transformer_lens import patching
from transformer_lens.model_bridge import TransformerBridge


class Worker:
    """A model, prompts and the caches of both runs."""

    def __init__(self, checkpoint: str, prompts: str, device: str = "cpu") -> None:
        self.model = TransformerBridge.boot_transformers(
            checkpoint, device=device, dtype=torch.float32
        )
        self.model.enable_compatibility_mode(no_processing=True)
        with numpy.load(prompts) as file:
            for name in ("orig", "new", "end", "answers", "wrong_answers"):
                setattr(self, name, torch.from_numpy(file[name]).to(device))
        self.row = torch.arange(len(self.orig), device=device)
        wanted = lambda name: name.endswith("hook_z")  # noqa: E731
        logits, self.before = self.model.run_with_cache(self.orig, names_filter=wanted)
        _, self.after = self.model.run_with_cache(self.new, names_filter=wanted)
        self.base = self._metric(logits)

    def pair(self, sender: list[int], receiver: list[int], site: str) -> dict:
        """Change of the metric [N] by one path, and the seconds of its pass."""
        begun = time.perf_counter()
        layer, head = sender
        name = f"blocks.{layer}.attn.hook_z"
        moved = self.after[name][:, :, head] - self.before[name][:, :, head]
        write = moved @ self.model.blocks[layer].attn.W_O[head]
        hook = patching._make_direct_path_hook(write, receiver[1], [])
        place = f"blocks.{receiver[0]}.attn.hook_{site}_input"
        with patching._split_qkv_input(self.model):
            logits = self.model.run_with_hooks(self.orig, fwd_hooks=[(place, hook)])
        values = self._metric(logits) - self.base
        return {"values": values.tolist(), "seconds": time.perf_counter() - begun}

    def _metric(self, logits: torch.Tensor) -> torch.Tensor:
        at_end = logits[self.row, self.end]
        return at_end[self.row, self.answers] - at_end[self.row, self.wrong_answers]


@torch.no_grad()
def main() -> None:
    worker = Worker(*sys.argv[1:3])
    print(json.dumps({"threads": torch.get_num_threads()}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(getattr(worker, request.pop("do"))(**request)), flush=True)


if __name__ == "__main__":
    main()
