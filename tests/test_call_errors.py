"""What the public calls refuse: a message names the argument, what was expected, what came."""

from __future__ import annotations

import re

import numpy
import pytest
import torch
from small_models import moved_pairs, ragged_pairs, shifted_pairs, tiny_model

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
from ioi_fast.kernels import packed_linear
from ioi_fast.reference import calls as reference_backend

N, T = 4, 7


@pytest.fixture(scope="module")
def model() -> GPT2:
    return tiny_model()


@pytest.fixture(scope="module")
def pairs() -> PromptPairs:
    return ragged_pairs(N, T)


@pytest.fixture(autouse=True)
def no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused is refused before any product is made."""

    def never(*arguments: object, **rest: object) -> None:
        raise AssertionError("work was done before the arguments were checked")

    monkeypatch.setattr(reference_backend, "plain_run", never)
    monkeypatch.setattr(packed_linear.PackedLinear, "_product", never)


def refused(error: type[Exception], *parts: str):
    """Expects an error whose message holds all parts, in this order."""
    return pytest.raises(error, match="(?s)" + ".*".join(re.escape(part) for part in parts))


PATH_PATCH = [
    ({"senders": []}, ValueError, ["senders must be", "got an empty list"]),
    ({"senders": [[]]}, ValueError, ["senders: a group must have at least one node"]),
    ({"senders": "0.0"}, TypeError, ["senders must be 'heads', 'mlps' or a list", "'0.0'"]),
    ({"senders": None}, TypeError, ["senders must be", "None"]),
    ({"senders": ["3.0"]}, ValueError, ["senders: layer 3 of 3.0", "3 layers (0-2)"]),
    ({"senders": ["0.3"]}, ValueError, ["senders: head 3 of 0.3", "3 heads (0-2)"]),
    ({"senders": ["mlp3"]}, ValueError, ["senders: layer 3 of mlp3"]),
    ({"senders": ["0.0", (0, 0)]}, ValueError, ["senders: 0.0 is there twice"]),
    ({"senders": ["0.0.q"]}, ValueError, ["senders: expected a head", "'0.0.q'"]),
    ({"senders": [0]}, TypeError, ["senders: expected a head", "got 0"]),
    ({"receivers": []}, ValueError, ["receivers must be", "got an empty list"]),
    ({"receivers": "logit"}, TypeError, ["receivers must be 'logits' or a list", "'logit'"]),
    ({"receivers": ["0.0"]}, ValueError, ["receivers: expected a receiver like '9.9.q'", "'0.0'"]),
    ({"receivers": ["5.0.q"]}, ValueError, ["receivers: layer 5 of 5.0", "3 layers"]),
    ({"receivers": ["1.0.q", "1.0.q"]}, ValueError, ["receivers: 1.0.q is there twice"]),
    ({"position": "IO"}, ValueError, ["position: the prompts have no role 'IO'", "END, S2, S1"]),
    ({"position": 7}, ValueError, ["position must be from 0 to 6", "got 7"]),
    ({"position": 1.5}, TypeError, ["position must be a role", "1.5"]),
    ({"position": torch.zeros(3, dtype=torch.int64)}, TypeError, ["position", "torch.int64 [3]"]),
    ({"between": "heads"}, ValueError, ["between must be one of mlps, nothing", "'heads'"]),
    ({"between": None}, ValueError, ["between must be one of", "None"]),
    ({"metric": "logits"}, ValueError, ["metric must be one of logit_diff", "'logits'"]),
    ({"metric": 3}, TypeError, ["metric must be a name or a callable", "3"]),
    ({"knock_out": ["0.0"]}, TypeError, ["knock_out must be a dict", "['0.0']"]),
    ({"knock_out": {"9.9": "END"}}, ValueError, ["knock_out: layer 9 of 9.9"]),
    ({"knock_out": {"0.0": "IO"}}, ValueError, ["knock_out[0.0]: the prompts have no role 'IO'"]),
    ({"knock_out": {"0.0": 3}}, TypeError, ["knock_out[0.0] must be a role, 'all' or a list", "3"]),
    ({"knock_out": {"0.0": "END", (0, 0): "S2"}}, ValueError, ["knock_out: 0.0 is there twice"]),
    (
        {"knock_out_source": "median"},
        ValueError,
        ["knock_out_source must be one of mean", "median"],
    ),
    (
        {"precision": "fp16"},
        ValueError,
        ["precision must be one of fp32, tf32, bf16, fp64", "'fp16'"],
    ),
    ({"backend": "cuda"}, ValueError, ["backend must be one of auto, reference, cpu", "'cuda'"]),
    ({"backend": None}, ValueError, ["backend must be one of", "None"]),
    ({"max_memory": 0}, ValueError, ["max_memory must be a number of bytes above 0", "got 0"]),
    ({"max_memory": 1e9}, TypeError, ["max_memory must be a number of bytes", "1000000000.0"]),
    ({"max_memory": True}, TypeError, ["max_memory must be a number of bytes", "True"]),
    ({"max_memory": 100}, ValueError, ["max_memory must be at least", "bytes", "got 100"]),
    ({"threads": 0}, ValueError, ["threads must be a number of threads above 0", "got 0"]),
    ({"threads": "2"}, TypeError, ["threads must be a number of threads", "'2'"]),
]


@pytest.mark.parametrize(("arguments", "error", "message"), PATH_PATCH)
def test_path_patch_refuses(model, pairs, arguments, error, message) -> None:
    with refused(error, *message):
        path_patch(model, pairs, **arguments)


ACTIVATION_PATCH = [
    ({"site": "pattern"}, ValueError, ["site must be one of z, q, k, v, resid_pre", "'pattern'"]),
    ({"site": None}, ValueError, ["site must be one of", "None"]),
    ({"position": "every"}, ValueError, ["position: the prompts have no role 'every'"]),
    ({"position": -1}, ValueError, ["position must be from 0 to 6", "got -1"]),
    ({"heads": "mlps"}, ValueError, ["heads: mlp0 is not a head"]),
    ({"heads": ["0.0", "mlp1"]}, ValueError, ["heads: mlp1 is not a head; site 'z'"]),
    ({"heads": []}, ValueError, ["heads must be", "got an empty list"]),
    ({"heads": ["0.0", "0.0"]}, ValueError, ["heads: 0.0 is there twice"]),
    ({"heads": "0.0"}, TypeError, ["heads must be", "'0.0'"]),
    ({"site": "mlp_out", "heads": ["0.0"]}, ValueError, ["heads must be None at site 'mlp_out'"]),
    ({"metric": "f"}, ValueError, ["metric must be one of"]),
    ({"threads": -1}, ValueError, ["threads must be a number of threads above 0", "-1"]),
    ({"precision": "fp128"}, ValueError, ["precision must be one of"]),
]


@pytest.mark.filterwarnings("ignore:ioi_fast runs the reference")
@pytest.mark.parametrize(("arguments", "error", "message"), ACTIVATION_PATCH)
def test_activation_patch_refuses(model, pairs, arguments, error, message) -> None:
    with refused(error, *message):
        activation_patch(model, pairs, **arguments)


ABLATE = [
    ({"variants": []}, ValueError, ["variants must have at least one variant", "an empty list"]),
    (
        {"variants": {"0.0": "END"}},
        TypeError,
        ["variants must be a list of dicts", "{'0.0': 'END'}"],
    ),
    ({"variants": "0.0"}, TypeError, ["variants must be a list of dicts", "'0.0'"]),
    ({"variants": [{}, ["0.0"]]}, TypeError, ["variants[1] must be a dict", "['0.0']"]),
    ({"variants": [{"0.9": "END"}]}, ValueError, ["variants[0]: head 9 of 0.9"]),
    ({"variants": [{}, {"0.0": "IO"}]}, ValueError, ["variants[1][0.0]: the prompts have no role"]),
    (
        {"variants": [{"0.0": None}]},
        TypeError,
        ["variants[0][0.0] must be a role, 'all' or a list"],
    ),
    ({"variants": [{"0.0": []}]}, ValueError, ["variants[0][0.0] must have at least one role"]),
    ({"variants": [{"0.0": ["END", 3]}]}, TypeError, ["variants[0][0.0] must be", "['END', 3]"]),
    ({"variants": [{"0.0": ["END", "END"]}]}, ValueError, ["[0][0.0]: END is there twice"]),
    ({"variants": [{"0.0": ["END", "all"]}]}, ValueError, ["[0][0.0]: 'all' stands alone"]),
    ({"source": "median"}, ValueError, ["source must be one of mean, mean_by_form, zero, new"]),
    ({"base": "circuit"}, ValueError, ["base must be 'model' or a Circuit", "'circuit'"]),
    ({"base": {"0.0": "END"}}, ValueError, ["base must be 'model' or a Circuit"]),
    ({"base": Circuit({"9.0": "END"})}, ValueError, ["base: layer 9 of 9.0 is out of range"]),
    ({"base": Circuit({"0.0": "IO"})}, ValueError, ["base: the prompts have no role 'IO' of 0.0"]),
    ({"mean_pairs": "pairs"}, TypeError, ["mean_pairs must be PromptPairs", "str"]),
    ({"metric": "f"}, ValueError, ["metric must be one of"]),
    ({"threads": 1.0}, TypeError, ["threads must be a number of threads", "1.0"]),
]


@pytest.mark.filterwarnings("ignore:ioi_fast runs the reference")
@pytest.mark.parametrize(("arguments", "error", "message"), ABLATE)
def test_ablate_refuses(model, pairs, arguments, error, message) -> None:
    with refused(error, *message):
        ablate(model, pairs, **{"variants": [{}], **arguments})


ATTENTION = [
    ({"heads": []}, ValueError, ["heads must be", "got an empty list"]),
    ({"heads": ["mlp0"]}, ValueError, ["heads: expected single heads, got mlp0"]),
    ({"heads": [["0.0", "0.1"]]}, ValueError, ["heads: expected single heads, got 0.0+0.1"]),
    ({"heads": ["0.7"]}, ValueError, ["heads: head 7 of 0.7"]),
    ({"run": "clean"}, ValueError, ["run must be one of orig, new", "'clean'"]),
    ({"run": "new", "after": {"senders": ["0.0"]}}, ValueError, ["run must be 'orig' with after"]),
    ({"after": ["0.0"]}, TypeError, ["after must be a dict of path_patch arguments"]),
    ({"after": {"senders": ["0.0"], "sender": 1}}, ValueError, ["after", "unknown 'sender'"]),
    ({"after": {"receivers": ["1.0.q"]}}, ValueError, ["after", "no senders"]),
    ({"after": {1: 2, "x": 3}}, ValueError, ["after", "unknown 1"]),
    ({"after": {"senders": "heads"}}, ValueError, ["after: expected one sender", "got 9"]),
    ({"after": {"senders": ["0.0"], "between": "x"}}, ValueError, ["between must be one of"]),
    ({"threads": 0}, ValueError, ["threads must be"]),
]


@pytest.mark.filterwarnings("ignore:ioi_fast runs the reference")
@pytest.mark.parametrize(("arguments", "error", "message"), ATTENTION)
def test_attention_refuses(model, pairs, arguments, error, message) -> None:
    with refused(error, *message):
        attention(model, pairs, **{"heads": ["0.0"], **arguments})


CIRCUIT = [
    ((["9.9"],), TypeError, ["heads must be a dict", "['9.9']"]),
    (({"mlp0": "END"},), ValueError, ["heads: expected a head", "'mlp0'"]),
    (({"9": "END"},), ValueError, ["heads: expected a head", "'9'"]),
    (({9: "END"},), TypeError, ["heads: expected a head", "got 9"]),
    (({("9", "9"): "END"},), TypeError, ["heads: expected a head"]),
    (({"9.9": 14},), TypeError, ["heads[9.9] must be a role like 'END'", "14"]),
    (({"9.9": "END", (9, 9): "S2"},), ValueError, ["heads: 9.9 is there twice"]),
    (({"9.9": "END"}, {"a": ["9.6"]}), ValueError, ["classes['a']: 9.6 is not in the circuit"]),
    (({"9.9": "END"}, {"a": ["x"]}), ValueError, ["classes['a']: expected a head", "'x'"]),
]


@pytest.mark.parametrize(("arguments", "error", "message"), CIRCUIT)
def test_circuit_refuses(arguments, error, message) -> None:
    with refused(error, *message):
        Circuit(*arguments)


def test_a_circuit_is_sorted_and_prints() -> None:
    circuit = Circuit({"9.9": "END", numpy_head(): "S2"}, {"mover": ["9.9"]}, [("L0H1", "9.9.k")])
    assert repr(circuit) == "Circuit(0.1@S2, 9.9@END)"
    assert [str(head) for head in circuit.classes["mover"]] == ["9.9"]
    assert circuit.edges == (("0.1", "9.9.k"),)


def numpy_head() -> tuple:
    return (numpy.int64(0), numpy.int64(1))


def calls(model: object, pairs: object):
    yield lambda: path_patch(model, pairs)
    yield lambda: activation_patch(model, pairs)
    yield lambda: ablate(model, pairs, [{}])
    yield lambda: attention(model, pairs, ["0.0"])


def test_other_models_and_prompts_are_refused(model, pairs) -> None:
    for call in calls(model.weights, pairs):
        with refused(TypeError, "model must be an ioi_fast.GPT2", "got Weights"):
            call()
    for call in calls(model, [pairs.orig, pairs.new]):
        with refused(TypeError, "pairs must be PromptPairs, got list"):
            call()


@pytest.mark.parametrize("name", ["orig", "new", "answers", "wrong_answers"])
def test_ids_outside_the_vocabulary_are_refused(model, pairs, name: str) -> None:
    fields = {
        key: getattr(pairs, key).clone() for key in ("orig", "new", "answers", "wrong_answers")
    }
    fields[name][2] = 53
    wrong = PromptPairs(**fields, positions=pairs.positions)
    for call in calls(model, wrong):
        with refused(ValueError, f"{name} must hold ids below 53", "got 53 in prompt 2"):
            call()


@pytest.mark.parametrize("name", ["orig", "new"])
def test_prompts_longer_than_the_model_are_refused(model, name: str) -> None:
    long, short = torch.zeros(2, 17, dtype=torch.int64), torch.zeros(2, 5, dtype=torch.int64)
    tokens = {"orig": short, "new": short, name: long}
    ends = {key: {"END": [value.shape[1] - 1] * 2} for key, value in tokens.items()}
    pairs = PromptPairs(
        tokens["orig"],
        tokens["new"],
        [0, 0],
        [1, 1],
        positions=ends["orig"],
        new_positions=ends["new"],
    )
    for call in calls(model, pairs):
        with refused(ValueError, f"pairs.{name} has 17 tokens, the model takes at most 16"):
            call()
    with refused(ValueError, f"mean_pairs.{name} has 17 tokens"):
        ablate(model, ragged_pairs(), [{}], mean_pairs=pairs)


@pytest.mark.parametrize(("prompts", "role"), [(shifted_pairs, "END"), (moved_pairs, "S2")])
def test_positions_that_do_not_match_are_refused(model, prompts, role: str) -> None:
    pairs = prompts()
    for call in (
        lambda: path_patch(model, pairs, receivers=["1.0.q"], position=None),
        lambda: path_patch(model, pairs, receivers=["1.0.v"], position=3),
        lambda: pair_sweep(model, pairs),
        lambda: activation_patch(model, pairs, "z", None),
        lambda: activation_patch(model, pairs, "z", "each"),
        lambda: activation_patch(model, pairs, "resid_pre", torch.tensor([1, 2, 3, 2])),
        lambda: explain(activation_patch, model, pairs, position="each"),
    ):
        with refused(ValueError, "position", "token to token", role, "prompt 0", "name a role"):
            call()


@pytest.mark.parametrize("source", ["mean_by_form"])
def test_means_by_form_need_forms(model, pairs, source: str) -> None:
    fields = ("orig", "new", "answers", "wrong_answers", "positions")
    bare = PromptPairs(**{name: getattr(pairs, name) for name in fields})
    other = PromptPairs(**{name: getattr(pairs, name) for name in fields}, forms=[0, 0, 0, 0])
    with refused(ValueError, "source='mean_by_form' needs pairs.forms, which is None"):
        ablate(model, bare, [{}], source)
    with refused(ValueError, "source='mean_by_form' needs mean_pairs.forms, which is None"):
        ablate(model, pairs, [{}], source, mean_pairs=bare)
    with refused(ValueError, "source='mean_by_form': mean_pairs has no prompt of form 1"):
        ablate(model, pairs, [{}], source, mean_pairs=other)
    with refused(ValueError, "knock_out_source='mean_by_form' needs pairs.forms"):
        path_patch(model, bare, knock_out={"0.0": "END"}, knock_out_source=source)


@pytest.mark.parametrize("name", ["wte", "blocks[1].w_in", "ln_f_gain"])
def test_weights_that_are_not_finite_are_named_before_any_work(pairs, name) -> None:
    model = tiny_model()
    model.weights.named()[name].flatten()[3] = torch.nan
    with refused(ValueError, f"model: {name} must be finite"):
        path_patch(model, pairs)
    with refused(ValueError, f"model: {name} must be finite"):
        ablate(model, pairs, [{"0.0": "END"}], backend="reference")
