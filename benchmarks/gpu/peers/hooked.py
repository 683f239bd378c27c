"""Path patching and knock-outs by hooks on transformers' GPT2LMHeadModel, as its users write them.

One intervention at a time, each a full pass over all prompts with all logits. Both clean runs are
kept beforehand and cost nothing. Heads are frozen at z, the input of c_proj.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from ioi_fast import GPT2
from ioi_fast.benchmarks.gpu.jobs.job import Job
from ioi_fast.benchmarks.gpu.peers.plain_sweep import check_prompts

Place = tuple[str, int]  # ("z" | "qkv" | "mlp" | "resid", layer), ("final", 0)
Edit = Callable[[Tensor], Tensor | None]  # None: as it was


def hooked_model(host: GPT2, device: torch.device) -> nn.Module:
    """Our weights in transformers on a device, with its fastest attention."""
    from ioi_fast.benchmarks.transformers_model import as_transformers

    peer = as_transformers(host)
    peer.set_attn_implementation("sdpa")
    return peer.to(device)


class HookedRuns:
    """A model and the prompts of a job, with what both clean runs hold."""

    def __init__(self, model: nn.Module, job: Job, device: torch.device) -> None:
        check_prompts(job.pairs)
        pairs = job.pairs
        self.model, self.job, self.pairs = model, job, pairs
        self.blocks = model.transformer.h
        self.head_width = model.config.n_embd // model.config.n_head
        self.orig, self.new = pairs.orig.to(device), pairs.new.to(device)
        self.answers, self.wrong = pairs.answers.to(device), pairs.wrong_answers.to(device)
        self.held, self.base = self._clean(self.orig)
        self.held_new, _ = self._clean(self.new)

    def _clean(self, tokens: Tensor) -> tuple[dict[Place, Tensor], Tensor]:
        held: dict[Place, Tensor] = {}
        places = [(site, n) for n in range(len(self.blocks)) for site in ("z", "mlp", "resid")]
        keep = {place: lambda value, place=place: held.update({place: value}) for place in places}
        metric = self.run(keep, tokens)
        return held, metric

    def run(self, edits: Mapping[Place, Edit], tokens: Tensor | None = None) -> Tensor:
        """The metric [N] of a pass in which places are read and edited."""
        with ExitStack() as stack:
            for place, edit in edits.items():
                stack.callback(self._hook(place, edit).remove)
            tokens = self.orig if tokens is None else tokens
            at_end = self.model(tokens, use_cache=False).logits[:, -1]
        row = torch.arange(len(tokens), device=tokens.device)
        return at_end[row, self.answers] - at_end[row, self.wrong]

    def _hook(self, place: Place, edit: Edit) -> torch.utils.hooks.RemovableHandle:
        def before(module: nn.Module, inputs: tuple) -> tuple | None:
            value = edit(inputs[0])
            return None if value is None else (value, *inputs[1:])

        def after(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor | None:
            return edit(output)

        site, layer = place
        block = self.blocks[layer]
        if site in ("qkv", "mlp"):
            module = block.attn.c_attn if site == "qkv" else block.mlp
            return module.register_forward_hook(after)
        modules = {"z": block.attn.c_proj, "resid": block, "final": self.model.transformer.ln_f}
        return modules[site].register_forward_pre_hook(before)

    def columns(self, head: int, site: int = 0) -> slice:
        """Those of a head in z, or in what c_attn makes: q, k and v side by side."""
        begin = site * self.model.config.n_embd + head * self.head_width
        return slice(begin, begin + self.head_width)


class HookedPaths(HookedRuns):
    """Path patches: a sender, and receivers or the logits."""

    def __init__(self, model: nn.Module, job: Job, device: torch.device) -> None:
        super().__init__(model, job, device)
        asked, T = job.asked, self.orig.shape[1]
        at, every = torch.arange(T), torch.ones(len(self.orig), T, dtype=torch.bool)
        name = asked.get("position")
        where = every if name is None else at == self.pairs.positions[name][:, None]
        self.where_NT1 = where[..., None].to(device)
        self.frozen = ("z", "mlp") if job.name == "J5" else ("z",)

    def two_passes(self, item: object) -> Tensor:
        """Values [N] of one item: what the first pass brings to the receivers is put there in a
        second one."""
        sender, receivers = self._asked(item)
        kept: dict[Place, Tensor] = {}
        read = {place: lambda value, place=place: kept.update({place: value})
                for place in receivers}  # fmt: skip
        self.run({**self._frozen(sender), **read})

        def put(place: Place) -> Edit:
            return lambda value: self._patched(value, kept[place], receivers[place])

        return self.run({place: put(place) for place in receivers}) - self.base

    def one_pass(self, item: object) -> Tensor:
        """The same in one: the first pass goes on to the logits, or a sender's direct write is
        added to a copy of what the receiver reads."""
        sender, receivers = self._asked(item)
        if ("final", 0) in receivers:
            return self.run(self._frozen(sender)) - self.base
        ((place, (columns,)),) = receivers.items()
        layer, head = sender
        block, own = self.blocks[place[1]], self.columns(head)
        moved = self.held_new["z", layer][..., own] - self.held["z", layer][..., own]
        write = moved @ self.blocks[layer].attn.c_proj.weight[own]

        def put(value: Tensor) -> Tensor:
            rows = block.ln_1(self.held["resid", place[1]] + write)
            weight, bias = block.attn.c_attn.weight[:, columns], block.attn.c_attn.bias[columns]
            value = value.clone()
            value[..., columns] = rows @ weight + bias
            return value

        return self.run({place: put}) - self.base

    def _asked(self, item: object) -> tuple[tuple[int, int], dict[Place, list[slice]]]:
        """A sender, and the places and columns of its receivers."""
        if self.job.name == "J5":
            site, a, b, c, d = item
            return (a, b), {("qkv", c): [self.columns(d, site)]}
        layer, head = map(int, item.split("."))
        if self.job.asked["receivers"] == "logits":
            return (layer, head), {("final", 0): [slice(None)]}
        receivers: dict[Place, list[slice]] = {}
        for name in self.job.asked["receivers"]:
            own_layer, own_head, site = name.split(".")
            columns = self.columns(int(own_head), "qkv".index(site))
            receivers.setdefault(("qkv", int(own_layer)), []).append(columns)
        return (layer, head), receivers

    def _frozen(self, sender: tuple[int, int]) -> dict[Place, Edit]:
        """Every head as in the original run but the sender, which is as in the new one."""
        layer, head = sender
        edits = {
            (site, n): lambda value, site=site, n=n: self.held[site, n]
            for n in range(len(self.blocks))
            for site in self.frozen
        }
        edits["z", layer] = lambda value: self._patched(
            self.held["z", layer], self.held_new["z", layer], [self.columns(head)]
        )
        return edits

    def _patched(self, value: Tensor, new: Tensor, columns: list[slice]) -> Tensor:
        value = value.clone()
        for some in columns:
            value[..., some] = torch.where(self.where_NT1, new[..., some], value[..., some])
        return value


class HookedSets(HookedRuns):
    """Knock-outs in a circuit: every head at its mean but where the circuit keeps it."""

    def __init__(self, model: nn.Module, job: Job, device: torch.device) -> None:
        super().__init__(model, job, device)
        self.kept = {str(head): roles for head, roles in job.asked["base"].roles.items()}
        self.means = [self.held_new["z", n].mean(0) for n in range(len(self.blocks))]
        # By set: masks are made once, when it is first run.
        self.edits: dict[frozenset[str], dict[Place, Edit]] = {}
        self.circuit = self._without({})

    def one_pass(self, item: Mapping[str, str]) -> Tensor:
        """Values [N] of one set of heads that are knocked out too."""
        return self._without(item) - self.circuit

    def _without(self, knocked: Mapping[str, str]) -> Tensor:
        key = frozenset(knocked)
        if key not in self.edits:
            self.edits[key] = self._masked(knocked)
        return self.run(self.edits[key])

    def _masked(self, knocked: Mapping[str, str]) -> dict[Place, Edit]:
        live = torch.zeros(len(self.blocks), *self.orig.shape, self.model.config.n_embd).bool()
        row = torch.arange(len(self.orig))
        for name, roles in self.kept.items():
            layer, head = map(int, name.split("."))
            for role in roles if name not in knocked else ():
                live[layer, row, self.pairs.positions[role], self.columns(head)] = True
        return {
            ("z", n): lambda value, n=n, own=own: torch.where(own, value, self.means[n])
            for n, own in enumerate(live.to(self.orig.device))
        }
