"""The reference backend against hooks on transformers, in float64, to rounding error."""

from __future__ import annotations

import pytest
import torch
from ablation_oracle import Replacement, aligner, cells
from compare import STORED, assert_close
from hook_oracle import HookedModel, freeze, logit_diff, path_patched_logits, put
from small_models import ragged_pairs, shifted_pairs, tiny_model
from torch import Tensor

from ioi_fast import PromptPairs, activation_patch, attention, path_patch

CONFIGS = {
    "tied": {},
    "untied-gelu": {"tie_word_embeddings": False, "activation_function": "gelu"},
    "flags": {"scale_attn_by_inverse_layer_idx": True, "layer_norm_epsilon": 1e-2},
}
SENDERS = ["0.1", "1.2", "2.0", "mlp0", "mlp2", ["0.0", "1.1"], ["mlp0", "2.2", "0.2"]]
RECEIVERS = {
    "logits": None,
    "queries": ["1.0.q", "2.1.q"],
    "values": ["1.1.v"],
    "mixed": ["1.0.k", "1.2.v", "mlp1", "2.2.q"],
}


def expected(hooked: HookedModel, pairs: PromptPairs, sender, receivers, role, between) -> Tensor:
    base, patched = path_patched_logits(
        hooked,
        pairs.orig,
        pairs.new,
        sender if isinstance(sender, list) else [sender],
        receivers,
        cells(pairs, role),
        aligner(pairs, role),
        between,
    )
    answers = (pairs.end, pairs.answers, pairs.wrong_answers)
    return logit_diff(patched, *answers) - logit_diff(base, *answers)


@pytest.mark.parametrize("between", ["mlps", "nothing"])
@pytest.mark.parametrize("receivers", list(RECEIVERS))
@pytest.mark.parametrize("role", ["END", "S2", None])
@pytest.mark.parametrize("settings", list(CONFIGS))
def test_path_patch(settings: str, role: str | None, receivers: str, between: str) -> None:
    model, pairs = tiny_model(seed=1, **CONFIGS[settings]), ragged_pairs(seed=2)
    hooked, chosen = HookedModel(model), RECEIVERS[receivers]
    result = path_patch(
        model,
        pairs,
        SENDERS,
        chosen or "logits",
        role,
        between,
        precision="fp64",
        backend="reference",
    )
    oracle_role = "END" if chosen is None and role is None else role
    truth = [expected(hooked, pairs, s, chosen, oracle_role, between) for s in SENDERS]
    if chosen is None and role == "S2":
        assert not result.values.any()
        assert torch.stack(truth).abs().max() < 1e-12
        return
    assert_close(result.values, torch.stack(truth), STORED)


@pytest.mark.parametrize("between", ["mlps", "nothing"])
@pytest.mark.parametrize("receivers", ["logits", "mixed"])
@pytest.mark.parametrize("role", ["END", "S2"])
def test_path_patch_of_prompts_of_other_length(role: str, receivers: str, between: str) -> None:
    model, pairs = tiny_model(seed=3), shifted_pairs(seed=4)
    hooked, chosen = HookedModel(model), RECEIVERS[receivers]
    arguments = {"precision": "fp64", "backend": "reference", "between": between}
    result = path_patch(model, pairs, SENDERS, chosen or "logits", role, **arguments)
    truth = torch.stack([expected(hooked, pairs, s, chosen, role, between) for s in SENDERS])
    if chosen is None and role != "END":
        assert not result.values.any()
    else:
        assert_close(result.values, truth, STORED)


KNOCK_OUT = {"0.2": "END", "1.0": "all", "mlp1": "S2"}


@pytest.mark.parametrize("source", ["mean", "mean_by_form", "zero", "new"])
@pytest.mark.parametrize("receivers", ["logits", "mixed"])
@pytest.mark.parametrize("between", ["mlps", "nothing"])
def test_path_patch_under_knock_outs(between: str, receivers: str, source: str) -> None:
    model, pairs = tiny_model(seed=5), ragged_pairs(seed=6)
    hooked, chosen = HookedModel(model), RECEIVERS[receivers]
    result = path_patch(
        model,
        pairs,
        SENDERS,
        chosen or "logits",
        "END",
        knock_out=KNOCK_OUT,
        knock_out_source=source,
        between=between,
        precision="fp64",
        backend="reference",
    )
    answers = (pairs.end, pairs.answers, pairs.wrong_answers)
    replacement, truth = Replacement(hooked, pairs, source), []
    for sender in SENDERS:
        base, patched = path_patched_logits(
            hooked,
            pairs.orig,
            pairs.new,
            sender if isinstance(sender, list) else [sender],
            chosen,
            cells(pairs, "END"),
            aligner(pairs, "END"),
            between,
            lambda run: replacement.variant(KNOCK_OUT, run),
        )
        truth.append(logit_diff(patched, *answers) - logit_diff(base, *answers))
    assert_close(result.values, torch.stack(truth), STORED)
    assert_close(result.base, logit_diff(base, *answers), STORED, what="base")


SITES = {"resid_pre": "resid_pre", "attn_out": "attn_out", "mlp_out": "mlp_out"}


@pytest.mark.parametrize("site", ["z", "q", "k", "v", *SITES])
def test_activation_patch_each_position(site: str) -> None:
    model, pairs = tiny_model(seed=9), ragged_pairs(seed=10)
    hooked = HookedModel(model)
    result = activation_patch(model, pairs, site, "each", precision="fp64", backend="reference")
    answers = (pairs.end, pairs.answers, pairs.wrong_answers)
    base = logit_diff(hooked.run(pairs.orig)[0], *answers)
    _, held = hooked.run(pairs.new)
    L, H, T = 3, 3, pairs.orig.shape[1]
    by_head = site not in SITES
    for layer in range(L):
        for t in range(T):
            where = torch.arange(T).expand(len(pairs), T) == t
            for head in range(H if by_head else 1):
                columns = slice(8 * head, 8 * head + 8) if by_head else slice(None)
                edit = ((site, layer), put(where, columns, held[site, layer][:, :T]))
                truth = logit_diff(hooked.run(pairs.orig, [edit])[0], *answers) - base
                got = result.values[layer, t, head] if by_head else result.values[layer, t]
                assert (got - truth).abs().max() <= STORED * truth.abs().max().clamp(min=1)
    assert result.effect.shape == ((L, T, H) if by_head else (L, T))


def test_attention_after_a_path_patch() -> None:
    """Patterns of pass D, rebuilt from the hooked model's own q and k."""
    model, pairs = tiny_model(seed=11), ragged_pairs(seed=12)
    plain = attention(model, pairs, ["2.1"], backend="reference", precision="fp64")
    patched = attention(
        model,
        pairs,
        ["2.1"],
        after={"senders": [["0.0", "0.1"]], "receivers": ["2.1.q"], "position": "END"},
        backend="reference",
        precision="fp64",
    )
    hooked = HookedModel(model)
    _, held = hooked.run(pairs.orig)
    _, held_new = hooked.run(pairs.new)
    where = cells(pairs, "END")
    edits = [(("z", layer), freeze(held["z", layer])) for layer in range(3)]
    edits += [(("z", 0), put(where, slice(0, 16), held_new["z", 0]))]
    _, direct = hooked.run(pairs.orig, edits)
    for pattern, q in ((plain, held["q", 2]), (patched, None)):
        query = held["q", 2].clone()
        if q is None:
            query = torch.where(where[..., None], direct["q", 2], query)
        scores = query[..., 8:16] @ held["k", 2][..., 8:16].mT / 8**0.5
        T = pairs.orig.shape[1]
        scores = scores.masked_fill(torch.ones(T, T, dtype=torch.bool).triu(1), -torch.inf)
        assert_close(pattern[0], scores.softmax(-1), STORED)
    assert not torch.equal(plain, patched)
