"""GPT-2s that were written in another form load, and compute what transformers computes of them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from checkpoints import (
    assert_same_logits,
    edit_config,
    edited,
    lively_model,
    random_tokens,
    refused,
    true_logits,
    write,
)
from safetensors.torch import load_file, save_model
from transformers import (
    GPT2DoubleHeadsModel,
    GPT2ForQuestionAnswering,
    GPT2ForSequenceClassification,
    GPT2ForTokenClassification,
    GPT2LMHeadModel,
    GPT2Model,
)

from ioi_fast.model.checkpoint import load
from ioi_fast.model.gpt2 import GPT2

WTE, HEAD = "transformer.wte.weight", "lm_head.weight"
CLASSES = [
    GPT2Model,
    GPT2LMHeadModel,
    GPT2DoubleHeadsModel,
    GPT2ForSequenceClassification,
    GPT2ForTokenClassification,
    GPT2ForQuestionAnswering,
]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return write(tmp_path / "model", lively_model())


@torch.no_grad()
def assert_same_model(ours: GPT2, theirs: GPT2LMHeadModel) -> None:
    """Raises unless logits agree to 1e-6 with all sums in float64, and to 1e-5 in fp32."""
    tokens = random_tokens(ours.config.vocab_size)
    truth = theirs.double().eval()(tokens).logits
    for got, most in ((ours.to(dtype=torch.float64)(tokens), 1e-6), (ours(tokens), 1e-5)):
        error = float((got - truth).abs().max() / truth.abs().max())
        if not error <= most:
            raise AssertionError(f"logits differ by {error:.1e}, allowed {most:.0e}")


def read_by_transformers(directory: Path) -> GPT2LMHeadModel:
    return GPT2LMHeadModel.from_pretrained(
        directory, attn_implementation="eager", dtype=torch.float32
    )


@contextmanager
def one_line(*parts: str) -> Iterator[None]:
    """One warning of one line that holds every part; none at all where there are no parts."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    said = [str(one.message) for one in caught if one.category is UserWarning]
    assert len(said) == bool(parts) and all(part in said[0] for part in parts), said
    assert not parts or ("\n" not in said[0] and caught[0].filename == __file__)


def test_a_tied_matrix_stored_as_lm_head_alone(directory: Path) -> None:
    theirs = lively_model()
    save_model(theirs, str(directory / "model.safetensors"))
    assert WTE not in load_file(directory / "model.safetensors")
    with one_line():
        ours = load(directory)
    assert ours.weights.unembed is ours.weights.wte and ours.config.tie_word_embeddings
    assert_same_model(ours, read_by_transformers(directory))
    edit_config(directory, tie_word_embeddings=False)
    refused(directory, "'wte.weight' is missing")


def test_the_tied_matrix_in_files_without_prefix_and_in_shards(tmp_path: Path) -> None:
    theirs = lively_model()
    theirs.save_pretrained(tmp_path, max_shard_size="40KB")
    index = tmp_path / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    file = content["weight_map"].pop(WTE)
    content["weight_map"] = {
        name.removeprefix("transformer."): shard for name, shard in content["weight_map"].items()
    } | {HEAD: file, "score.weight": file}
    index.write_text(json.dumps(content))
    for shard in tmp_path.glob("*.safetensors"):
        with edited(shard) as tensors:
            for name in [*tensors]:
                plain = HEAD if name == WTE else name.removeprefix("transformer.")
                tensors[plain] = tensors.pop(name)
            if shard.name == file:
                tensors["score.weight"] = torch.ones(2, 48)
    with one_line("score.weight"):
        ours = load(tmp_path)
    assert_same_model(ours, read_by_transformers(tmp_path))


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_what_the_classes_of_transformers_save(kind: type, tmp_path: Path) -> None:
    theirs = lively_model()
    other = kind(theirs.config)
    inner = other if kind is GPT2Model else other.transformer
    inner.load_state_dict(theirs.transformer.state_dict())
    other.save_pretrained(tmp_path)
    heads = {
        name
        for name in load_file(tmp_path / "model.safetensors")
        if kind is not GPT2Model and not name.startswith("transformer.")
    }
    with one_line(*heads):
        ours = load(tmp_path)
    assert_same_model(ours, read_by_transformers(tmp_path))
    assert_same_model(ours, theirs)


@pytest.mark.parametrize(
    "head",
    [
        "v_head.summary.weight",
        "v_head.0.bias",
        "score.weight",
        "classifier.out_proj.weight",
        "qa_outputs.bias",
        "multiple_choice_head.summary.weight",
        "value_head.weight",
        "reward_head.weight",
        "ilql_heads.q_heads.0.0.weight",
        "module.v_head.summary.bias",
    ],
)
def test_heads_of_training_are_named_and_left_out(head: str, directory: Path) -> None:
    with edited(directory / "model.safetensors") as tensors:
        tensors[head] = torch.full((1, 48), torch.nan)
    with one_line(head, "model.safetensors"):
        ours = load(directory)
    assert_same_model(ours, read_by_transformers(directory))


def test_many_heads_make_one_line_that_is_short(directory: Path) -> None:
    with edited(directory / "model.safetensors") as tensors:
        tensors.update({f"score.{i:05}\n{'x' * 99}": torch.ones(1) for i in range(2000)})
    with pytest.warns(UserWarning, match=r"left out, heads .* score\.00000") as caught:
        load(directory)
    assert len(caught) == 1 and len(str(caught[0].message)) < 1000


@pytest.mark.parametrize(
    "name",
    [
        "lm_head.bias",
        "lm_head_2.weight",
        "output_head.weight",
        "transformer.score.weight",
        "transformer.h.0.attn.c_attn.lora_A.weight",
        "transformer.h.0.attn.c_attn.SCB",
        "transformer.h.0.attn.c_attn.weight.absmax",
        "transformer.h.0.crossattention.c_attn.weight",
        "transformer.h.0.attn.v_head.weight",
        "transformer.h.2.ln_1.weight",
        "transformer.h.0.attn.rotary_emb.inv_freq",
        "transformer.tokens_embed.weight",
        "value_headless.weight",
    ],
)
def test_nothing_of_the_language_model_itself_is_left_out(name: str, directory: Path) -> None:
    with edited(directory / "model.safetensors") as tensors:
        tensors[name] = torch.ones(48)
    refused(directory, directory / "model.safetensors", name, "does not belong")


OLD = ("initializer_range", "layer_norm_epsilon", "n_embd", "n_head", "n_layer", "vocab_size")


@pytest.mark.parametrize("sizes", [{"n_ctx": 20, "n_positions": 24}, {"n_ctx": 24}], ids=repr)
def test_a_config_of_before_model_types(sizes: dict, directory: Path) -> None:
    file = directory / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({name: config[name] for name in OLD} | sizes))
    assert_same_model(load(directory), lively_model())


def test_gpt_1_stays_refused(directory: Path) -> None:
    file = directory / "config.json"
    config = json.loads(file.read_text())
    old = {name: config[name] for name in OLD} | {"n_ctx": 24, "n_positions": 24}
    file.write_text(json.dumps(old | {"afn": "gelu"}))
    refused(directory, file, "afn='gelu'")
    file.write_text(json.dumps(old))
    with edited(directory / "model.safetensors") as tensors:
        tensors["transformer.tokens_embed.weight"] = tensors.pop(WTE)
        del tensors["transformer.ln_f.weight"], tensors["transformer.ln_f.bias"]
    refused(directory, directory / "model.safetensors", "missing")


def renamed(directory: Path, change: Callable[[str], str]) -> Path:
    with edited(directory / "model.safetensors") as tensors:
        new = {change(name): tensor for name, tensor in tensors.items()}
        tensors.clear()
        tensors.update(new)
    return directory


@pytest.mark.parametrize(
    "change",
    [
        lambda name: f"model.{name}",
        lambda name: f"_orig_mod.{name}",
        lambda name: f"module.{name}",
        lambda name: f"module._orig_mod.model.{name}",
        lambda name: f"base_model.model.{name}",
        lambda name: f"_orig_mod.{name.removeprefix('transformer.')}",
        lambda name: name.replace("transformer.", "transformer._orig_mod."),
        lambda name: name.replace("transformer.", "model.transformer.module._orig_mod."),
        lambda name: name.replace("h.0.", "h.0._orig_mod.").replace("h.1.", "h.1._orig_mod."),
    ],
)
def test_a_prefix_that_all_tensors_have_is_taken_away(change, directory: Path) -> None:
    with one_line():
        ours = load(renamed(directory, change))
    assert_same_model(ours, lively_model())


def test_a_value_head_beside_a_wrapped_model(directory: Path) -> None:
    renamed(directory, lambda name: f"pretrained_model.{name}")
    with edited(directory / "model.safetensors") as tensors:
        tensors["v_head.summary.weight"] = torch.ones(1, 48)
    with one_line("v_head.summary.weight"):
        assert_same_model(load(directory), lively_model())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda name: f"student.{name}", "student.transformer.wte.weight"),
        (lambda name: name.replace("h.1.", "h.1._orig_mod."), "h.1._orig_mod."),
        (lambda name: name if "wte" in name else f"model.{name}", "'model.'"),
        (lambda name: name.replace(".wpe.", "._orig_mod.wpe."), "transformer._orig_mod.wpe"),
    ],
)
def test_another_prefix_is_named(change, named: str, directory: Path) -> None:
    refused(renamed(directory, change), directory / "model.safetensors", named)


def test_two_models_in_one_file(directory: Path) -> None:
    with edited(directory / "model.safetensors") as tensors:
        tensors.update({f"model.{name}": tensor + 1 for name, tensor in [*tensors.items()]})
    refused(directory, "'model.transformer.", "prefix")


@pytest.mark.parametrize("factor", [1.0, 1.001])
@pytest.mark.parametrize("kept", [torch.float32, torch.bfloat16])
def test_two_matrices_of_which_the_config_says_that_they_are_tied(
    factor: float, kept: torch.dtype, directory: Path
) -> None:
    with edited(directory / "model.safetensors") as tensors:
        for name in tensors:
            tensors[name] = tensors[name].to(kept)
        tensors[HEAD] = (tensors[WTE].float() * factor**100).to(kept)
    theirs = read_by_transformers(directory)
    equal = factor == 1
    assert (theirs.lm_head.weight is theirs.transformer.wte.weight) == equal
    with one_line() if equal else one_line("lm_head.weight", "untied"):
        ours = load(directory)
    assert (ours.weights.unembed is ours.weights.wte) == ours.config.tie_word_embeddings == equal
    assert_same_model(ours, theirs)


@pytest.mark.parametrize("factor", [1.0, 1.5])
def test_a_merged_adapter_in_memory(factor: float, tmp_path: Path) -> None:
    theirs = lively_model()
    theirs.lm_head.weight = torch.nn.Parameter(theirs.lm_head.weight.detach() * factor)
    with one_line() if factor == 1 else one_line("GPT2LMHeadModel", "lm_head.weight", "untied"):
        ours = load(theirs)
    assert ours.config.tie_word_embeddings == (factor == 1)
    theirs.save_pretrained(tmp_path)
    with one_line() if factor == 1 else one_line(str(tmp_path), "untied"):
        assert load(tmp_path).weight_hash() == ours.weight_hash()
    assert_same_model(ours, read_by_transformers(tmp_path))


def test_a_head_that_is_no_matrix_or_not_finite(directory: Path) -> None:
    with edited(directory / "model.safetensors") as tensors:
        tensors[HEAD] = tensors[WTE] * torch.nan
    refused(directory, HEAD, "NaN")
    with edited(directory / "model.safetensors") as tensors:
        tensors[HEAD] = tensors[WTE][:, :-1]
    refused(directory, HEAD, "must have shape [61, 48], got [61, 47]")


def test_a_tokenizer_of_another_form_beside_a_sound_model(tmp_path: Path) -> None:
    """As GPT-2s for Chinese have it: the weights are read, the tokenizer is left out by name."""
    model = lively_model()
    write(tmp_path, model)
    (tmp_path / "vocab.txt").write_text("[PAD]\n")
    tokens = random_tokens(61)
    with pytest.warns(UserWarning, match="no tokenizer here: .*vocab.txt is a WordPiece"):
        found = load(tmp_path)
    assert found.tokenizer is None
    assert_same_logits(found(tokens), true_logits(model, tokens))
    (tmp_path / "tokenizer.json").write_text("{")  # broken is another thing than unread
    refused(tmp_path, "tokenizer.json")


NOTES = {
    "wandb_project": "mine",
    "shared_by": "someone",
    "training_args": {"adam_epsilon": 1e-8, "max_grad_norm": 1.0},
    "optimizer": {"eps": 1e-8},
    "model_card": {"bias": "it has some"},
    "pruned_heads": [],
}


@pytest.mark.parametrize("name", NOTES)
def test_notes_of_training_pass(name: str, tmp_path: Path) -> None:
    model = lively_model()
    write(tmp_path, model)
    edit_config(tmp_path, **{name: NOTES[name]})
    tokens = random_tokens(61)
    assert_same_logits(load(tmp_path)(tokens), true_logits(model, tokens))
