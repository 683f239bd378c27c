"""Path patching, patching and ablation by hooks on transformers' GPT2LMHeadModel.

An oracle that shares nothing with the package but the weights: heads are frozen at z (the input of
c_proj), not at q, k and v; every phase is a full forward pass in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import torch
from torch import Tensor

from ioi_fast.benchmarks.transformers_model import as_transformers
from ioi_fast.model.gpt2 import GPT2

# A place: ("z" | "q" | "k" | "v" | "mlp_in" | "mlp_out" | "attn_out" | "resid_pre" | …, layer).
Place = tuple[str, int]
Edit = Callable[[Tensor], Tensor]


class HookedModel:
    """A transformers GPT-2 whose places can be read and edited by hooks."""

    def __init__(self, model: GPT2) -> None:
        self.model = as_transformers(model).double()
        self.width = model.config.n_embd
        self.d_head = model.config.d_head
        self.layers = model.config.n_layer

    @torch.no_grad()
    def run(
        self, tokens: Tensor, edits: list[tuple[Place, Edit]] = ()
    ) -> tuple[Tensor, dict[Place, Tensor]]:
        """Logits [N, T, V] and what every place held before its edits."""
        held: dict[Place, Tensor] = {}
        by_place: dict[Place, list[Edit]] = {}
        for place, edit in edits:
            by_place.setdefault(place, []).append(edit)

        def visit(place: Place, value: Tensor) -> Tensor:
            held[place] = value.clone()
            for edit in by_place.get(place, ()):
                value = edit(value.clone())
            return value

        with ExitStack() as stack:
            for layer, block in enumerate(self.model.transformer.h):
                for handle in self._hook(layer, block, visit):
                    stack.callback(handle.remove)
            return self.model(tokens).logits, held

    def _hook(self, layer: int, block: torch.nn.Module, visit: Callable) -> list:
        D = self.width

        def split(module, inputs, output):
            parts = [
                visit((site, layer), output[..., i * D : (i + 1) * D])
                for i, site in enumerate("qkv")
            ]
            return torch.cat(parts, -1)

        def before(site):
            return lambda module, inputs: (visit((site, layer), inputs[0]), *inputs[1:])

        def after(site):
            return lambda module, inputs, output: visit((site, layer), output)

        def attn_after(module, inputs, output):
            return (visit(("attn_out", layer), output[0]), *output[1:])

        def resid_mid(module, inputs):
            # The block keeps this very tensor as its residual: only a change in place reaches both.
            inputs[0].copy_(visit(("resid_mid", layer), inputs[0]))

        return [
            block.register_forward_pre_hook(before("resid_pre")),
            block.attn.c_attn.register_forward_hook(split),
            block.attn.c_proj.register_forward_pre_hook(before("z")),
            block.attn.register_forward_hook(attn_after),
            block.ln_2.register_forward_pre_hook(resid_mid),
            block.ln_2.register_forward_pre_hook(before("mlp_in")),
            block.mlp.register_forward_hook(after("mlp_out")),
        ]

    def place(self, node: str) -> tuple[Place, slice]:
        """The output place of "9.6" or "mlp3" and its columns."""
        if node.startswith("mlp"):
            return ("mlp_out", int(node[3:])), slice(None)
        layer, head = (int(part) for part in node.split("."))
        return ("z", layer), slice(head * self.d_head, (head + 1) * self.d_head)

    def receiver(self, name: str) -> tuple[Place, slice]:
        """The place of "9.9.q" or "mlp3" as a receiver and its columns."""
        if name.startswith("mlp"):
            return ("mlp_in", int(name[3:])), slice(None)
        head, site = name.rsplit(".", 1)
        (_, layer), columns = self.place(head)
        return (site, layer), columns


def put(where: Tensor, columns: slice, value: Tensor) -> Edit:
    """An edit that writes value's columns at the cells `where` [N, T]."""

    def edit(current: Tensor) -> Tensor:
        current[..., columns] = torch.where(
            where[..., None], value[..., columns], current[..., columns]
        )
        return current

    return edit


def freeze(value: Tensor) -> Edit:
    """An edit that puts a whole value back."""
    return lambda current: value.clone()


def path_patched_logits(
    hooked: HookedModel,
    orig: Tensor,
    new: Tensor,
    sender: list[str],
    receivers: list[str] | None,
    where: Tensor,
    align: Callable[[Tensor], Tensor],
    between: str,
    knock_out: Callable[[str], list[tuple[Place, Edit]]] = lambda run: [],
) -> tuple[Tensor, Tensor]:
    """Logits [N, T, V] of the base and of the patched run.

    `where` [N, T] are the cells that are patched, `align` brings new-run values to them,
    knock_out(run) are edits in force in the "orig" or "new" run.
    """
    _, held_new = hooked.run(new, knock_out("new"))
    base, held = hooked.run(orig, knock_out("orig"))
    used = _with_edits(held, knock_out("orig"))
    used_new = _with_edits(held_new, knock_out("new"))
    edits = [((name, layer), freeze(used[name, layer])) for layer in range(hooked.layers)
             for name in (("z",) if between == "mlps" else ("z", "mlp_out"))]  # fmt: skip
    if between == "mlps":
        edits += [edit for edit in knock_out("orig") if edit[0][0] == "mlp_out"]
    for node in sender:
        place, columns = hooked.place(node)
        edits.append((place, put(where, columns, align(used_new[place]))))
    direct, held_direct = hooked.run(orig, edits)
    if receivers is None:
        return base, direct
    final = knock_out("orig")
    for name in receivers:
        place, columns = hooked.receiver(name)
        final.append((place, put(where, columns, held_direct[place])))
    return base, hooked.run(orig, final)[0]


def _with_edits(held: dict[Place, Tensor], edits: list) -> dict[Place, Tensor]:
    """What each place held after its edits."""
    used = dict(held)
    for place, edit in edits:
        used[place] = edit(used[place].clone())
    return used


def logit_diff(logits: Tensor, end: Tensor, answers: Tensor, wrong: Tensor) -> Tensor:
    """Logit of the answer minus that of the wrong answer at END, [N]."""
    at_end = logits[torch.arange(len(end)), end]
    picked = [at_end.gather(1, token[:, None]).squeeze(1) for token in (answers, wrong)]
    return picked[0] - picked[1]
