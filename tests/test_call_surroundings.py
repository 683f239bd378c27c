"""What surrounds a call: nothing is changed, threads are set back, plans explain."""

from __future__ import annotations

import pytest
import torch
from small_models import ragged_pairs, shifted_pairs, tiny_model
from torch import Tensor

from ioi_fast import (
    GPT2,
    Circuit,
    PromptPairs,
    ablate,
    activation_patch,
    attention,
    explain,
    pair_sweep,
    path_patch,
)

N, T = 4, 7
SLOW = {"backend": "reference"}
LISTED = ["0.1", (1, 2), "mlp1", ["0.0", "mlp0", "2.2"]]


@pytest.fixture(scope="module")
def model() -> GPT2:
    return tiny_model()


@pytest.fixture(scope="module")
def pairs() -> PromptPairs:
    return ragged_pairs(N, T)


def every_tensor(model: GPT2, pairs: PromptPairs) -> list[Tensor]:
    roles = [*pairs.positions.values(), *pairs.new_roles.values()]
    tokens = [pairs.orig, pairs.new, pairs.answers, pairs.wrong_answers, pairs.forms, *roles]
    return model.weights.tensors() + tokens


@pytest.mark.parametrize("prompts", [ragged_pairs, shifted_pairs], ids=["ragged", "shifted"])
def test_the_callers_model_and_tensors_are_unchanged(prompts) -> None:
    model, pairs = tiny_model(), prompts(N, T)
    tensors = every_tensor(model, pairs)
    before = [tensor.clone() for tensor in tensors]
    position = pairs.end.clone() if pairs.new_positions is None else "END"
    senders = ["0.0", ["mlp1", "2.1"]]
    knock_out = {"0.2": "END"}
    path_patch(model, pairs, senders, position=position, metric="kl", backend="cpu")
    path_patch(model, pairs, senders, ["1.1.q"], "S2", knock_out=knock_out, **SLOW)
    activation_patch(model, pairs, "v", "END", **SLOW)
    ablate(model, pairs, [knock_out], base=Circuit({"2.0": "END"}), **SLOW)
    attention(model, pairs, "heads", precision="fp64", **SLOW)
    for tensor, copy in zip(tensors, before, strict=True):
        assert torch.equal(tensor, copy)
    assert isinstance(position, str) or torch.equal(position, pairs.end)
    assert senders == ["0.0", ["mlp1", "2.1"]] and knock_out == {"0.2": "END"}


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_equal_calls_give_equal_bits(model, pairs, backend: str) -> None:
    first = path_patch(model, pairs, LISTED, backend=backend)
    again = path_patch(model, pairs, LISTED, backend=backend)
    assert torch.equal(first.values, again.values) and torch.equal(first.base, again.base)


TO_HEADS = {"receivers": ["1.0.q", "2.1.v"], "position": "S2"}
CALLS = {
    "logits": (path_patch, {}),
    "logits in bf16": (path_patch, {"precision": "bf16"}),
    "receivers": (path_patch, TO_HEADS),
    "knock-outs": (path_patch, {"knock_out": {"0.0": "END"}, "metric": "kl"}),
    "ablations": (ablate, {"variants": [{"0.1": "all"}, {"1.0": "END"}]}),
    "a circuit": (ablate, {"variants": [{"0.1": "END"}], "base": Circuit({"0.1": "END"})}),
    "patches": (activation_patch, {"site": "v"}),
    "pairs": (pair_sweep, {"inputs": ["q", "k"], "per_prompt": True}),
}


@pytest.mark.filterwarnings("ignore:this CPU has no bf16")
@pytest.mark.parametrize(
    ("heads", "width", "T"), [(4, 32, 20), (4, 96, 20), (3, 21, 13), (2, 66, 15)]
)
@pytest.mark.parametrize("kind", list(CALLS))
def test_threads_do_not_change_a_bit_of_a_result(kind: str, heads: int, width: int, T: int) -> None:
    call, asked = CALLS[kind]
    model, pairs = tiny_model(n_head=heads, n_embd=width, n_positions=32), ragged_pairs(5, T)
    one = call(model, pairs, **asked, threads=1, backend="cpu")
    for threads in (2, 3):
        other = call(model, pairs, **asked, threads=threads, backend="cpu")
        assert torch.equal(other.values, one.values) and torch.equal(other.base, one.base)


def failing(logits: Tensor, prompt: Tensor) -> Tensor:
    raise ZeroDivisionError("the metric failed")


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_threads_are_set_back_after_a_call_and_after_an_error(model, pairs, backend: str) -> None:
    before = torch.get_num_threads()
    asked = 3 if before != 3 else 2
    seen = []

    def watching(logits: Tensor, prompt: Tensor) -> Tensor:
        seen.append(torch.get_num_threads())
        return logits[:, 0]

    result = path_patch(model, pairs, ["0.0"], metric=watching, threads=asked, backend=backend)
    assert set(seen) == {asked} and torch.get_num_threads() == before
    assert result.provenance["threads"] == asked
    with pytest.raises(ZeroDivisionError):
        path_patch(model, pairs, ["0.0"], metric=failing, threads=asked, backend=backend)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    "call",
    [
        lambda *given, **rest: activation_patch(*given, "z", "END", ["0.0"], **rest),
        lambda *given, **rest: ablate(*given, [{"0.0": "END"}], **rest),
    ],
    ids=["activation_patch", "ablate"],
)
def test_threads_are_set_back_by_the_other_calls(model, pairs, call) -> None:
    before = torch.get_num_threads()
    call(model, pairs, threads=before + 1, **SLOW)
    assert torch.get_num_threads() == before
    with pytest.raises(ZeroDivisionError):
        call(model, pairs, metric=failing, threads=before + 1, **SLOW)
    assert torch.get_num_threads() == before
    attention(model, pairs, ["0.0"], threads=before + 1, **SLOW)
    assert torch.get_num_threads() == before


def test_explain_takes_the_same_arguments_and_runs_nothing(model, pairs, monkeypatch) -> None:
    def never(*arguments: object) -> None:
        raise AssertionError("explain ran the call")

    monkeypatch.setattr("ioi_fast.calls.path_patch.fast_path_patch", never)
    same = {"senders": LISTED, "between": "nothing", "metric": "kl", "threads": 1, "progress": True}
    plan = explain(path_patch, model, pairs, **same, max_memory=8 * 10**6, backend="cpu")
    assert [str(variant.sender) for variant in sorted(plan.variants, key=lambda v: v.index)] == [
        "0.1",
        "1.2",
        "mlp1",
        "0.0+mlp0+2.2",
    ]
    assert plan.between == "nothing" and plan.vocabulary and plan.peak_bytes <= 8 * 10**6
    assert len(explain(path_patch, model, pairs).live) == N
    assert not explain(path_patch, model, pairs, position="S2").live


def test_explain_refuses_what_has_no_plan(model, pairs) -> None:
    with pytest.raises(ValueError, match=r"call must be one of ioi_fast\.path_patch, .*attention"):
        explain(attention, model, pairs, heads=["0.0"])
    with pytest.raises(ValueError, match=r"call must be one of ioi_fast\.path_patch, .*got \[\]"):
        explain([], model, pairs)
    with pytest.raises(TypeError, match="ablate: missing a required argument: 'variants'"):
        explain(ablate, model, pairs)
    with pytest.raises(TypeError, match="path_patch: got an unexpected keyword argument 'sender'"):
        explain(path_patch, model, pairs, sender="heads")
    for arguments, reason in (
        ({"precision": "fp64"}, "'fp64' belongs to the reference"),
        ({"backend": "reference"}, "backend is 'reference'"),
    ):
        with pytest.raises(ValueError, match=f"only the fast path has a plan, and .*{reason}"):
            explain(path_patch, model, pairs, **arguments)


def test_explain_raises_as_the_call_does(model, pairs) -> None:
    for arguments, error, match in (
        ({"sender": "heads"}, TypeError, "'sender'"),
        ({"senders": ["9.9"]}, ValueError, "senders: layer 9"),
        ({"between": "mlp"}, ValueError, "between must be one of"),
        ({"metric": "ld"}, ValueError, "metric must be one of"),
        ({"backend": "gpu"}, ValueError, "backend must be one of"),
        ({"precision": "fp8"}, ValueError, "precision must be one of"),
        ({"max_memory": "1GB"}, TypeError, "max_memory must be"),
        ({"max_memory": 10}, ValueError, "max_memory must be at least"),
        ({"threads": 0}, ValueError, "threads must be"),
    ):
        with pytest.raises(error, match=match):
            explain(path_patch, model, pairs, **arguments)
        with pytest.raises(error, match=match):
            path_patch(model, pairs, **arguments)
    with pytest.raises(TypeError, match="positional"):
        explain(path_patch, model, pairs, "heads")


def test_autocast_changes_nothing(model: GPT2, pairs: PromptPairs) -> None:
    """It would round products of what is said to be fp32."""
    for how in ({"backend": "cpu"}, SLOW):
        calls = [
            lambda how=how: (
                path_patch(model, pairs, receivers=["2.1.v"], position="END", **how).values
            ),
            lambda how=how: ablate(model, pairs, [{"0.1": "all"}], **how).values,
            lambda how=how: attention(model, pairs, "heads", **how),
        ]
        for call in calls:
            plain = call()
            with torch.autocast("cpu"):
                assert torch.equal(call(), plain)
                assert torch.is_autocast_enabled("cpu")
    with torch.autocast("cpu"):
        logits = model(pairs.orig)
    assert torch.equal(logits, model(pairs.orig))


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_source_of_no_knock_outs_asks_for_nothing(model: GPT2, backend: str) -> None:
    pairs = ragged_pairs(N, T)
    formless = PromptPairs(
        pairs.orig, pairs.new, pairs.answers, pairs.wrong_answers, positions=pairs.positions
    )
    asked = {"knock_out_source": "mean_by_form", "backend": backend}
    assert torch.equal(
        path_patch(model, formless, **asked).values,
        path_patch(model, formless, backend=backend).values,
    )
