"""Differences with bf16 operands: their error, with bf16 arithmetic in the CPU and without."""

from __future__ import annotations

import warnings

import pytest
import torch
from compare import assert_close, normal
from small_models import ragged_pairs, tiny_model

from ioi_fast import (
    GPT2,
    Circuit,
    GPT2Config,
    PromptPairs,
    ablate,
    activation_patch,
    attention,
    load,
    pair_sweep,
    path_patch,
)
from ioi_fast.asked.interventions import parse_path_patch
from ioi_fast.ioi.dataset import ioi_prompts
from ioi_fast.kernels.bf16_linear import Bf16Linear, bf16_linear
from ioi_fast.kernels.build import BuildError, load_kernels
from ioi_fast.kernels.choose_linear import ONEDNN, PANELS, ROUNDED, bf16_arithmetic
from ioi_fast.kernels.packed_linear import PackedLinear, onednn_available
from ioi_fast.kernels.panel_linear import PanelLinear, bf16_panels_supported
from ioi_fast.reference import calls as reference_backend
from ioi_fast.results.promised_accuracy import BF16_MEDIAN, PROMISED, sweep_errors

TRUE = {"backend": "reference", "precision": "fp64"}
SHAPES = {
    "six layers": {"n_layer": 6, "n_head": 8, "n_embd": 256},
    "wide": {"n_layer": 3, "n_head": 4, "n_embd": 512},
}


# Rounded operands meet the same code behind them.
@pytest.fixture(params=[PANELS, ONEDNN, pytest.param(ROUNDED, marks=pytest.mark.slow)])
def means(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How products run; what this machine can't do is left out."""
    if not available(request.param):
        pytest.skip(f"no bf16 products by {request.param} here")
    monkeypatch.setattr(
        "ioi_fast.kernels.choose_linear.bf16_arithmetic", lambda compiled: request.param
    )
    return request.param


def available(means: str) -> bool:
    """Whether this machine multiplies so, fast or not."""
    if means == ONEDNN:
        return onednn_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return means == ROUNDED or (has_kernels() and bf16_panels_supported())


def has_kernels() -> bool:
    try:
        load_kernels()
    except BuildError:
        return False
    return True


def in_bf16(call, model: GPT2, pairs: PromptPairs, *asked: object, **more: object):
    """The call in bf16, on packed weights of its own."""
    model.refresh()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call(model, pairs, *asked, **more, backend="cpu", precision="bf16")


def random_model(shape: str) -> tuple[GPT2, PromptPairs]:
    config = GPT2Config(**SHAPES[shape], vocab_size=200, n_positions=32)
    return GPT2.random(config, seed=0), ragged_pairs(8, 12, vocab_size=200)


def check_promise(errors: torch.Tensor) -> None:
    assert errors.median() <= BF16_MEDIAN and errors.max() <= PROMISED["bf16"]


@pytest.mark.parametrize("shape", [pytest.param("six layers", marks=pytest.mark.slow), "wide"])
def test_errors_on_random_weights(shape: str, means: str) -> None:
    model, pairs = random_model(shape)
    truth = path_patch(model, pairs, **TRUE)
    result = in_bf16(path_patch, model, pairs)
    assert result.precision == "bf16" and result.backend.startswith("cpu/")
    check_promise(sweep_errors(result.values, truth.values))
    to_queries = {"receivers": ["2.1.q", "2.3.v"], "position": "END"}
    truth = path_patch(model, pairs, **to_queries, **TRUE)
    check_promise(
        sweep_errors(in_bf16(path_patch, model, pairs, **to_queries).values, truth.values)
    )


def test_errors_on_the_bundled_model(means: str) -> None:
    model = load("demo")
    pairs = ioi_prompts(model.tokenizer, n=12, seed=0)
    truth = path_patch(model, pairs, **TRUE)
    check_promise(sweep_errors(in_bf16(path_patch, model, pairs).values, truth.values))


@pytest.mark.slow
@pytest.mark.parametrize("where", [*SHAPES, "demo"])
def test_plain_bf16_is_an_order_worse(where: str) -> None:
    """Both figures side by side: whole activations in bf16 against differences in bf16."""
    if where == "demo":
        model = load("demo")
        pairs = ioi_prompts(model.tokenizer, n=12, seed=0)
    else:
        model, pairs = random_model(where)
    truth = path_patch(model, pairs, **TRUE).values
    asked = {"senders": "heads", "receivers": "logits", "position": "END", "between": "mlps"}
    patch = parse_path_patch(pairs, model.config, **asked, knock_out=None, knock_out_source="mean")
    rounded = model.to(dtype=torch.bfloat16)
    whole = reference_backend.path_patch(rounded, pairs, patch, "logit_diff", lambda _: None)
    plain = sweep_errors(whole.values.float(), truth).median()
    ours = sweep_errors(in_bf16(path_patch, model, pairs).values, truth).median()
    # How far off plain bf16 is depends on how a CPU sums: 4.9e-2 where it has AMX.
    assert ours <= BF16_MEDIAN and plain >= 10 * ours, f"differences {ours:.1e}, plain {plain:.1e}"


def test_both_runs_stay_fp32(means: str) -> None:
    """Base metric and clean patterns are those of fp32 to the bit, only differences are rounded."""
    model, pairs = random_model("wide")
    fp32 = path_patch(model, pairs)
    bf16 = in_bf16(path_patch, model, pairs)
    assert torch.equal(bf16.base, fp32.base)
    assert not torch.equal(bf16.values, fp32.values)
    patterns = attention(model, pairs, ["2.1"])
    assert torch.equal(in_bf16(attention, model, pairs, ["2.1"]), patterns)


def test_every_call(means: str) -> None:
    model, pairs = random_model("wide")
    circuit = Circuit({"0.1": "S2", "1.0": "END", "2.2": "END"})
    sets = [{"0.1": "S2"}, {"1.0": "END", "2.2": "END"}]
    for call, asked in (
        (ablate, {"variants": [{"0.1": "all"}, {"mlp1": "END"}, {"1.2": "S2"}]}),
        (ablate, {"variants": sets, "base": circuit, "source": "zero"}),
        (activation_patch, {"site": "resid_mid", "position": "END"}),
        (path_patch, {"knock_out": {"0.1": "END"}, "receivers": ["2.0.q"]}),
    ):
        truth = call(model, pairs, **asked, **TRUE)
        check_promise(sweep_errors(in_bf16(call, model, pairs, **asked).values, truth.values))
    truth = pair_sweep(model, pairs, ["q"], per_prompt=True, **TRUE).values.flatten(0, -2)
    found = in_bf16(pair_sweep, model, pairs, ["q"], per_prompt=True).values.flatten(0, -2)
    check_promise(sweep_errors(found, truth))
    after = {"senders": ["0.1"], "receivers": ["1.0.q"]}
    truth = attention(model, pairs, ["2.1"], after=after, **TRUE)
    found = in_bf16(attention, model, pairs, ["2.1"], after=after)
    live_NT = torch.arange(truth.shape[2]) <= pairs.end[:, None]
    assert_close(found[:, live_NT], truth[:, live_NT], 2e-2)


@pytest.mark.parametrize("means", [PANELS, ONEDNN, ROUNDED])
@pytest.mark.parametrize(("R", "K", "out"), [(9, 70, 33), (1, 1, 1), (530, 801, 64), (40, 768, 96)])
@pytest.mark.parametrize("pack", [PackedLinear, PanelLinear])
def test_products_round_their_operands_and_nothing_else(
    means: str, pack: type, R: int, K: int, out: int
) -> None:
    """On weights packed by oneDNN, and in panels; blocks of rows are put together."""
    if not available(means) or (pack is PanelLinear and not has_kernels()):
        pytest.skip(f"no bf16 products by {means} here")
    rows, weight = normal(R, K, seed=1), normal(K, out, seed=2)
    left, right = rows.bfloat16().double(), weight.bfloat16().double()
    exact = left @ right
    product = bf16_linear(weight, means, pack).delta(rows)
    assert product.dtype == torch.float32
    # What K additions in fp32 can lose in any order; oneDNN rounds the sum to bf16 as well.
    allowed = K * 2**-24 * (left.abs() @ right.abs())
    allowed += 2**-8 * exact.abs() if means == ONEDNN else 0
    assert bool(((product - exact).abs() <= allowed).all())
    if K > 1:
        unrounded = rows.double() @ weight.double()
        assert not bool(((unrounded - exact).abs() <= allowed).all())


def test_a_cpu_without_bf16_says_that_it_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    model, pairs = tiny_model(), ragged_pairs()
    monkeypatch.setattr("ioi_fast.kernels.choose_linear.bf16_arithmetic", lambda compiled: ROUNDED)
    with pytest.warns(UserWarning, match="no bf16 arithmetic") as caught:
        path_patch(model, pairs, precision="bf16")
    assert len(caught) == 1 and caught[0].filename == __file__
    monkeypatch.undo()
    if bf16_arithmetic(has_kernels()) != ROUNDED:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            path_patch(model, pairs, precision="bf16")


@pytest.mark.parametrize(
    ("machine", "cpu", "compiled", "means"),
    [
        ("x86_64", ["amx", "avx512_bf16"], True, ONEDNN),
        ("x86_64", ["avx512_bf16"], True, PANELS),
        ("x86_64", ["avx512_bf16"], False, ONEDNN),
        ("x86_64", [], True, ROUNDED),
        ("AMD64", [], False, ROUNDED),
        ("aarch64", [], True, ONEDNN),
    ],
)
def test_means_follow_what_the_cpu_has(
    machine: str, cpu: list[str], compiled: bool, means: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """oneDNN says that it takes bf16 on any AVX-512; that alone is no bf16 arithmetic."""
    where = "ioi_fast.kernels.choose_linear."
    says = {
        "_is_mkldnn_bf16_supported": True,
        "_is_amx_tile_supported": "amx" in cpu,
        "_is_avx512_bf16_supported": "avx512_bf16" in cpu,
    }
    monkeypatch.setattr(where + "platform.machine", lambda: machine)
    monkeypatch.setattr(where + "onednn_available", lambda: True)
    monkeypatch.setattr(where + "_of_torch", lambda _, name: says[name])
    monkeypatch.setattr(where + "bf16_panels_supported", lambda: "avx512_bf16" in cpu)
    assert bf16_arithmetic(compiled) == means
    monkeypatch.setattr(where + "onednn_available", lambda: False)
    assert bf16_arithmetic(compiled) in (PANELS, ROUNDED)


def test_each_means_has_the_product_of_its_name() -> None:
    """Results are alike: another product would only be slower, or kill a CPU that lacks it."""
    weight = torch.ones(4, 32)
    panels = bf16_linear(weight, PANELS, PackedLinear)
    assert isinstance(panels, PanelLinear) and panels.panels.dtype == torch.bfloat16
    rounded = bf16_linear(weight, ROUNDED, PanelLinear)
    assert isinstance(rounded, PanelLinear) and rounded.rounded and not panels.rounded
    assert isinstance(bf16_linear(weight, ROUNDED, plain), Bf16Linear)
    if available(ONEDNN):
        assert isinstance(bf16_linear(weight, ONEDNN, PanelLinear), Bf16Linear)


def plain(weight: torch.Tensor, _bias: None) -> PackedLinear:
    return PackedLinear(weight, None, onednn=False)
