"""nnsight on a checkpoint, asked line by line; run by an interpreter that has it.

Reads one JSON request a line and answers with one. `path_patch` is one traced pass a sender: every
z is set to what it was in the original run, the sender's at END to what it was in the new one, so
that nothing but the sender's path to the logits changes.
"""

from __future__ import annotations

import json
import sys
import time

import numpy
import torch
from nnsight import NNsight
from torch import Tensor
from transformers import GPT2LMHeadModel


class Worker:
    """A model, prompts and z of both runs."""

    def __init__(self, checkpoint: str, prompts: str) -> None:
        theirs = GPT2LMHeadModel.from_pretrained(checkpoint, dtype=torch.float32)
        self.layers, self.heads = theirs.config.n_layer, theirs.config.n_head
        self.model = NNsight(theirs.eval())
        with numpy.load(prompts) as file:
            for name in ("orig", "new", "end", "answers", "wrong_answers"):
                setattr(self, name, torch.from_numpy(file[name]))
        self.row = torch.arange(len(self.orig))
        self.z_new, _ = self._clean(self.new)
        self.z_orig, self.base = self._clean(self.orig)

    def path_patch(self, sender: list[int]) -> dict:
        """Values of one sender [N] and the seconds of its pass; both clean runs are free."""
        (layer, head), begun = sender, time.perf_counter()
        z = list(self.z_orig)
        z[layer] = self._by_head(z[layer].clone())
        z[layer][self.row, self.end, head] = self._by_head(self.z_new[layer])[
            self.row, self.end, head
        ]
        z[layer] = z[layer].flatten(2)
        with self.model.trace(self.orig):
            for index in range(self.layers):
                self.model.transformer.h[index].attn.c_proj.input = z[index]
            logits = self.model.lm_head.output.save()
        values = self._metric(logits) - self.base
        return {"values": values.tolist(), "seconds": time.perf_counter() - begun}

    def _clean(self, tokens: Tensor) -> tuple[list[Tensor], Tensor]:
        z = [None] * self.layers
        with self.model.trace(tokens):
            for index in range(self.layers):
                z[index] = self.model.transformer.h[index].attn.c_proj.input.save()
            logits = self.model.lm_head.output.save()
        return z, self._metric(logits)

    def _by_head(self, z: Tensor) -> Tensor:
        return z.unflatten(2, (self.heads, -1))

    def _metric(self, logits: Tensor) -> Tensor:
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
