"""The contract of the public calls: shapes, exact zeros, labels and what is left untouched."""

from __future__ import annotations

import itertools

import pytest
import torch
from compare import assert_close
from small_models import ragged_pairs, shifted_pairs, tiny_model

from ioi_fast import (
    GPT2,
    Circuit,
    PromptPairs,
    Result,
    ablate,
    activation_patch,
    attention,
    path_patch,
)

L, H, N, T = 3, 3, 4, 7
SLOW = {"backend": "reference"}
LISTED = ["0.1", (1, 2), "mlp1", ["0.0", "mlp0", "2.2"]]


@pytest.fixture(scope="module")
def model() -> GPT2:
    return tiny_model()


@pytest.fixture(scope="module")
def pairs() -> PromptPairs:
    return ragged_pairs(N, T)


def check_result(result: Result, *shape: int, prompts: int = N) -> None:
    """Values over `shape` places with prompts last, and what follows from them."""
    assert isinstance(result, Result)
    places = 1
    for size in shape:
        places *= size
    assert result.values.numel() == places * prompts and result.values.shape[-1] == prompts
    assert result.base.shape == (prompts,)
    tensors = [result.values, result.base, result.effect, result.stderr]
    if result.provenance["metric"] in ("kl", "rank"):
        assert result.relative is None
    else:
        tensors.append(result.relative)
    for tensor in tensors:
        assert tensor.dtype == torch.float32 and tensor.device.type == "cpu"
        assert not tensor.requires_grad
    assert result.values.isfinite().all() and result.base.isfinite().all()
    assert all(tensor.shape == shape for tensor in tensors[2:])
    assert len(result.senders) == places
    mean = result.values.reshape(*shape, prompts).double().mean(-1)
    assert_close(result.effect.double(), mean, 1e-6)


SENDERS = {"heads": (9, (L, H)), "mlps": (3, (L,)), "listed": (4, (4,))}


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("between", ["mlps", "nothing"])
@pytest.mark.parametrize("senders", list(SENDERS))
def test_path_patch_to_the_logits(model, pairs, senders: str, between: str, backend: str) -> None:
    count, shape = SENDERS[senders]
    asked = LISTED if senders == "listed" else senders
    result = path_patch(model, pairs, asked, between=between, backend=backend)
    check_result(result, *shape)
    assert result.values.shape == (count, N)
    assert result.values.any(1).all()
    assert result.precision == "fp32"
    assert result.backend == "reference" if backend == "reference" else result.backend[:4] == "cpu/"


@pytest.mark.parametrize("position", ["END", "S2", 3, torch.tensor([6, 5, 1, 0]), None])
@pytest.mark.parametrize("receivers", [["2.1.q"], ["1.0.k", "2.2.v", "mlp1"]])
@pytest.mark.parametrize("senders", list(SENDERS))
def test_path_patch_to_receivers(model, pairs, senders: str, receivers: list, position) -> None:
    count, shape = SENDERS[senders]
    asked = LISTED if senders == "listed" else senders
    result = path_patch(model, pairs, asked, receivers, position, **SLOW)
    check_result(result, *shape)
    assert result.values.shape == (count, N)


def test_heads_are_labelled_in_layer_order(model, pairs) -> None:
    result = path_patch(model, pairs, backend="cpu")
    names = tuple(f"{layer}.{head}" for layer in range(L) for head in range(H))
    assert result.senders == names
    alone = path_patch(model, pairs, ["1.2"], backend="cpu")
    assert_close(result.values[[1 * H + 2]], alone.values, 1e-5)
    assert_close(result.effect[1, 2], alone.effect[0], 1e-5)
    assert path_patch(model, pairs, LISTED, backend="cpu").senders == (
        "0.1",
        "1.2",
        "mlp1",
        "0.0+mlp0+2.2",
    )


METRICS = ["logit_diff", "prob", "rank", "accuracy", "kl", lambda logits, prompt: logits[:, 0]]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_every_call_takes_every_metric(model, pairs, metric, backend: str) -> None:
    check_result(path_patch(model, pairs, LISTED, metric=metric, backend=backend), 4)
    if backend == "reference":
        check_result(activation_patch(model, pairs, "resid_mid", metric=metric, **SLOW), L)
        check_result(ablate(model, pairs, [{"0.1": "END"}], metric=metric, **SLOW), 1)


def test_accuracy_and_rank_are_whole_numbers(model, pairs) -> None:
    for metric in ("accuracy", "rank"):
        result = path_patch(model, pairs, metric=metric, backend="cpu")
        assert torch.equal(result.values, result.values.round())
        assert torch.equal(result.base, result.base.round())


@pytest.mark.parametrize("site", ["z", "q", "k", "v"])
def test_activation_patch_at_head_sites(model, pairs, site: str) -> None:
    for position in ("END", 3, torch.tensor([6, 5, 1, 0]), None):
        for heads in (None, "heads"):
            result = activation_patch(model, pairs, site, position, heads, **SLOW)
            check_result(result, L, H)
            assert result.values.shape == (L, H, N)
        listed = activation_patch(model, pairs, site, position, ["0.1", ["1.0", "1.2"]], **SLOW)
        check_result(listed, 2)
        assert listed.values.shape == (2, N) and listed.senders == ("0.1", "1.0+1.2")
    each = activation_patch(model, pairs, site, "each", **SLOW)
    check_result(each, L, T, H)
    assert each.values.shape == (L, T, H, N)
    listed = activation_patch(model, pairs, site, "each", ["0.1", ["1.0", "1.2"]], **SLOW)
    check_result(listed, 2, T)
    assert listed.values.shape == (2, T, N)


@pytest.mark.parametrize("site", ["resid_pre", "resid_mid", "attn_out", "mlp_out"])
def test_activation_patch_at_stream_sites(model, pairs, site: str) -> None:
    for position in ("S2", 3, None):
        result = activation_patch(model, pairs, site, position, **SLOW)
        check_result(result, L)
        assert result.values.shape == (L, N)
        assert result.senders == tuple(f"{site}{layer}" for layer in range(L))
    each = activation_patch(model, pairs, site, "each", **SLOW)
    check_result(each, L, T)
    assert each.values.shape == (L, T, N)


def test_each_position_stands_at_its_label(model, pairs) -> None:
    """Entry (layer, token, head) is that head patched at that token, under that name."""
    each = activation_patch(model, pairs, "z", "each", **SLOW)
    listed = activation_patch(model, pairs, "z", "each", ["2.1", "0.2"], **SLOW)
    stream = activation_patch(model, pairs, "resid_pre", "each", **SLOW)
    names = itertools.product(range(L), range(T), range(H))
    assert each.senders == tuple(f"{layer}.{head}@{t}" for layer, t, head in names)
    assert listed.senders == tuple(f"{head}@{t}" for head in ("2.1", "0.2") for t in range(T))
    names = itertools.product(range(L), range(T))
    assert stream.senders == tuple(f"resid_pre{layer}@{t}" for layer, t in names)
    for t in (0, 4, 6):
        one = activation_patch(model, pairs, "z", t, **SLOW).values
        assert torch.equal(each.values[:, t], one)
        assert torch.equal(listed.values[:, t], one[[2, 0], [1, 2]])
        assert torch.equal(
            stream.values[:, t], activation_patch(model, pairs, "resid_pre", t, **SLOW).values
        )


@pytest.mark.parametrize("source", ["mean", "mean_by_form", "zero", "new"])
@pytest.mark.parametrize("base", ["model", Circuit({"0.1": "S2", "2.0": "END"})], ids=str)
def test_ablate(model, pairs, source: str, base: object) -> None:
    variants = [{}, {"0.1": "S2"}, {"2.0": "END", "mlp0": "all"}]
    result = ablate(model, pairs, variants, source, base, **SLOW)
    check_result(result, 3)
    assert result.values.shape == (3, N)
    assert result.senders == ("nothing", "0.1@S2", "2.0@END+mlp0@all")
    assert not result.values[0].any() and result.values[1:].any(1).all()


def test_ablate_takes_variants_from_any_iterable(model, pairs) -> None:
    chosen = ({"0.1": role} for role in ("END", "all"))
    assert ablate(model, pairs, chosen, "zero", **SLOW).values.shape == (2, N)


def test_the_base_of_a_circuit_is_the_metric_of_that_run(model, pairs) -> None:
    plain = ablate(model, pairs, [{}], **SLOW)
    circuit = ablate(model, pairs, [{}], base=Circuit({"2.0": "END"}), **SLOW)
    assert torch.equal(plain.base, path_patch(model, pairs, ["0.0"], **SLOW).base)
    assert not torch.equal(circuit.base, plain.base)


def test_attention_shapes(model, pairs) -> None:
    assert attention(model, pairs, "heads", **SLOW).shape == (L * H, N, T, T)
    longer = shifted_pairs(N, T)
    T_new = longer.new.shape[1]
    for run, width in (("orig", T), ("new", T_new)):
        pattern = attention(model, longer, ["2.1", (0, 1)], run, **SLOW)
        assert pattern.shape == (2, N, width, width) and pattern.dtype == torch.float32
        assert_close(pattern.sum(-1), torch.ones(2, N, width), 1e-6)
    after = {"senders": ["0.0"], "receivers": ["2.1.q"], "position": "END"}
    changed = attention(model, pairs, ["2.1", "2.0"], after=after, **SLOW)
    plain = attention(model, pairs, ["2.1", "2.0"], **SLOW)
    assert changed.shape == (2, N, T, T)
    at_end = torch.arange(T) == pairs.end[:, None]
    moved = (changed - plain).abs().amax(-1) > 0
    assert torch.equal(moved[0], at_end) and not moved[1].any()


def test_one_prompt_of_one_token(model) -> None:
    one = PromptPairs([[5]], [[6]], [1], [2], positions={"END": [0]})
    for backend in ("cpu", "reference"):
        result = path_patch(model, one, backend=backend)
        assert result.values.shape == (L * H, 1) and result.values.isfinite().all()
        assert result.stderr.isnan().all()
