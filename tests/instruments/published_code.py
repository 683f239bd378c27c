"""Published path patching and circuit extraction on a checkpoint, in TransformerLens 3.9.

Run by an interpreter that has it. None of the published code is here: it is imported from a folder
that the user names. Reads that folder, a checkpoint directory and a request (.npz: orig, new
[N, T], end, answers, wrong_answers, forms [N], senders [S, 2], for every sweep NAME_at [N] and
NAME_receivers [R, 3], kept [L, H, N] the token at which the circuit keeps a head or −1, sets
[P, L, H] bool) and writes .npz: base [N], then by mode

  path_patching     every sweep [S, N] by the module of that name; whole_layers, whether it patches
                    every head of a receiver's layer, at all positions
  easy_transformer  every sweep [S, N], of_circuit [N], in_model and in_circuit [P, N], by ioi_utils
                    and ioi_circuit_extraction of that package

Both run on TransformerLens' transformer in float64: what they import of another transformer, of
prompts and for drawing is replaced by empty shells.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest.mock import MagicMock

import numpy
import torch
from torch import Tensor
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights
from transformers import GPT2LMHeadModel

# Imported by published modules for drawing alone, or in functions that are not called here.
SHELLS = ("plotly", "plotly.express", "plotly.graph_objects", "plotly.io", "matplotlib")
SHELLS += ("matplotlib.pyplot", "eindex")
OWN_SHELLS = ("hook_points", "utils", "ioi_dataset")


class Model(HookedTransformer):
    """A transformer with what the older code calls: two ways of caching, hooks at every place."""

    def check_hooks_to_add(self, *_: object, **__: object) -> None:
        """Takes hooks at places that only other settings visit, where they do nothing."""

    def cache_some(self, cache: dict[str, Tensor], names: object, **_: object) -> None:
        """Keeps copies of what the next runs compute at these places."""

        def keep(value: Tensor, hook: object) -> None:
            cache[hook.name] = value.clone()

        for name in self.hook_dict:
            if names(name):
                self.add_hook(name, keep)

    def cache_all(self, cache: dict[str, Tensor], **_: object) -> None:
        """Keeps copies of everything."""
        self.cache_some(cache, lambda name: True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=("path_patching", "easy_transformer"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("request", type=Path)
    parser.add_argument("output", type=Path)
    chosen = parser.parse_args()
    torch.set_grad_enabled(False)
    torch.set_default_dtype(torch.float64)
    with numpy.load(chosen.request) as file:
        asked = SimpleNamespace(**{name: torch.from_numpy(file[name]) for name in file.files})
    asked.row = torch.arange(len(asked.orig))
    model = load(chosen.checkpoint)
    # What each head writes, apart from the others, is slow to compute and asked for by one alone.
    model.set_use_attn_result(chosen.mode == "easy_transformer")
    for name in SHELLS:
        give_shell(name)
    sys.path.insert(0, str(chosen.folder))
    found = {"base": metric(model(asked.orig), asked)}
    by_mode = {"path_patching": nodes_patched, "easy_transformer": authors_runs}
    found |= by_mode[chosen.mode](model, asked, chosen.folder)
    numpy.savez(
        chosen.output, **{name: torch.as_tensor(one).numpy() for name, one in found.items()}
    )


def load(checkpoint: Path) -> Model:
    """The checkpoint in float64."""
    theirs = GPT2LMHeadModel.from_pretrained(str(checkpoint), dtype=torch.float64)
    config = theirs.config
    settings = HookedTransformerConfig(
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
        device="cpu",
        dtype=torch.float64,
    )
    model = Model(settings)
    model.load_state_dict(convert_gpt2_weights(theirs, model.cfg), strict=False)
    return model


def give_shell(name: str) -> None:
    """Puts an empty module where there is none."""
    try:
        importlib.import_module(name)
    except ImportError:
        sys.modules[name] = MagicMock()


def metric(logits: Tensor, asked: SimpleNamespace) -> Tensor:
    """Logit difference at END, [N]."""
    at_end = logits[asked.row, asked.end]
    return at_end[asked.row, asked.answers] - at_end[asked.row, asked.wrong_answers]


def sweeps(asked: SimpleNamespace) -> dict[str, tuple[list[list[int]], Tensor]]:
    """Receivers, each layer, head and site, and positions [N] of every sweep."""
    names = [name.removesuffix("_at") for name in vars(asked) if name.endswith("_at")]
    return {
        name: (getattr(asked, f"{name}_receivers").tolist(), getattr(asked, f"{name}_at"))
        for name in names
    }


def nodes_patched(model: Model, asked: SimpleNamespace, _: Path) -> dict[str, object]:
    """Sweeps by `path_patch` and `Node` of a module path_patching."""
    code = importlib.import_module("path_patching")
    base = metric(model(asked.orig), asked)
    _, orig = model.run_with_cache(asked.orig)
    _, new = model.run_with_cache(asked.new)
    # Where a node can put back what its hook has kept, it does so for its head alone.
    by_head = "ctx_key" in inspect.signature(code.Node.get_patching_hook_fn).parameters
    found: dict[str, object] = {"whole_layers": not by_head}
    for name, (receivers, at) in sweeps(asked).items():
        nodes = [code.Node("qkv"[site], layer, head=head) for layer, head, site in receivers]
        nodes = nodes or [code.Node("resid_post", model.cfg.n_layers - 1)]
        rows = [
            code.path_patch(
                model,
                orig_input=asked.orig,
                new_input=asked.new,
                sender_nodes=code.Node("z", layer, head=head),
                receiver_nodes=nodes,
                patching_metric=lambda logits: metric(logits, asked),
                orig_cache=orig,
                new_cache=new,
                # Older versions put receivers back everywhere, so that is where all is patched.
                seq_pos=at if by_head or not receivers else None,
            )
            for layer, head in asked.senders.tolist()
        ]
        found[name] = torch.stack(rows) - base
    return found


def authors_runs(model: Model, asked: SimpleNamespace, folder: Path) -> dict[str, object]:
    """Sweeps by `path_patching`, runs of the circuit by `do_circuit_extraction`."""
    package = ModuleType("easy_transformer")
    package.__path__ = [str(folder / "easy_transformer")]
    package.EasyTransformer = HookedTransformer
    sys.modules["easy_transformer"] = package
    sys.modules["easy_transformer.EasyTransformer"] = package
    for name in OWN_SHELLS:
        sys.modules[f"easy_transformer.{name}"] = MagicMock()
    extraction = importlib.import_module("easy_transformer.ioi_circuit_extraction")
    utils = importlib.import_module("easy_transformer.ioi_utils")
    found: dict[str, object] = {}
    base = metric(model(asked.orig), asked)
    for name, (receivers, at) in sweeps(asked).items():
        hooks = [
            (f"blocks.{layer}.attn.hook_{'qkv'[site]}", head) for layer, head, site in receivers
        ]
        hooks = hooks or [(f"blocks.{model.cfg.n_layers - 1}.hook_resid_post", None)]
        rows = []
        for sender in asked.senders.tolist():
            new, orig = (prompts(tokens, asked, at) for tokens in (asked.new, asked.orig))
            utils.path_patching(model, new, orig, [tuple(sender)], hooks, positions=["at"])
            rows.append(metric(model(asked.orig), asked))
            model.reset_hooks()
        found[name] = torch.stack(rows) - base
    return found | circuit_runs(model, asked, extraction)


def circuit_runs(model: Model, asked: SimpleNamespace, code: ModuleType) -> dict[str, Tensor]:
    """The circuit, the circuit without each set and the model without each set."""
    kept = {
        (layer, head): [[at] for at in asked.kept[layer, head].tolist()]
        for layer, head in (asked.kept[..., 0] >= 0).nonzero().tolist()
    }
    sets = [{tuple(head) for head in one.nonzero().tolist()} for one in asked.sets]

    def run(**heads: object) -> Tensor:
        code.do_circuit_extraction(
            **heads,
            mlps_to_remove={},
            ioi_dataset=prompts(asked.orig, asked),
            mean_dataset=prompts(asked.new, asked),
            model=model,
        )
        values = metric(model(asked.orig), asked)
        model.reset_hooks()
        return values

    without = [{head: at for head, at in kept.items() if head not in one} for one in sets]
    return {
        "of_circuit": run(heads_to_keep=kept),
        "in_circuit": torch.stack([run(heads_to_keep=one) for one in without]),
        "in_model": torch.stack([run(heads_to_remove={h: kept[h] for h in one}) for one in sets]),
    }


def prompts(tokens: Tensor, asked: SimpleNamespace, at: Tensor | None = None) -> SimpleNamespace:
    """What the code reads of a set of prompts."""
    return SimpleNamespace(
        N=len(tokens),
        toks=tokens,
        max_len=tokens.shape[1],
        sentences=[""] * len(tokens),
        word_idx={"at": at},
        groups=[(asked.forms == form).nonzero()[:, 0].tolist() for form in asked.forms.unique()],
    )


if __name__ == "__main__":
    main()
