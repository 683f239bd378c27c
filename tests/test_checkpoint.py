"""What `load` accepts: its logits are those of transformers, for every shape and form of file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tokenizers
import torch
from checkpoints import (
    SMALL,
    TOLERANCE,
    assert_same_logits,
    edit_config,
    edited,
    lively_model,
    logits_error,
    mean_largest_attention,
    random_tokens,
    true_logits,
    write,
)
from gpt2_configs import COMMON, LABELS, OLD
from safetensors.torch import load_file
from transformers import GPT2LMHeadModel

from ioi_fast.model import checkpoint
from ioi_fast.model.checkpoint import load
from ioi_fast.model.config import GPT2Config
from ioi_fast.model.gpt2 import GPT2

SHAPES = {
    "head 16": {"n_embd": 48, "n_head": 3, "n_layer": 3},
    "head 32": {"n_embd": 64, "n_head": 2, "vocab_size": 67},
    "head 64": {"n_embd": 128, "n_head": 2, "n_layer": 1},
    "head 128": {"n_embd": 256, "n_head": 2, "vocab_size": 41},
    "one head": {"n_embd": 32, "n_head": 1, "n_layer": 4},
    "odd MLP": {"n_inner": 37},
    "square MLP": {"n_inner": SMALL["n_embd"]},
    "untied": {"tie_word_embeddings": False},
    "small, one layer": {"n_embd": 768, "n_head": 12, "n_layer": 1},
    "gelu_pytorch_tanh": {"activation_function": "gelu_pytorch_tanh"},
    "gelu": {"activation_function": "gelu"},
    "relu": {"activation_function": "relu"},
    "epsilon": {"layer_norm_epsilon": 0.1},
    "inverse layer": {"scale_attn_by_inverse_layer_idx": True, "n_layer": 4},
    "unscaled": {"scale_attn_weights": False},
    "upcast": {"reorder_and_upcast_attn": True},
}
# The configs of the real models with every setting but the sizes (16 wide heads, 2 layers).
REAL = {
    "gpt2": {"n_head": 12},
    "gpt2-medium": {"n_head": 16, **OLD},
    "gpt2-large": {"n_head": 20, **OLD},
    "gpt2-xl": {"n_head": 25, "output_past": True, **OLD},
    "distilgpt2": {"n_head": 12, **LABELS},
}


@pytest.mark.parametrize("settings", SHAPES.values(), ids=SHAPES)
def test_logits_are_those_of_transformers(settings: dict, tmp_path: Path) -> None:
    theirs = lively_model(**settings)
    tokens = random_tokens(theirs.config.vocab_size, N=4, T=16)
    ours = load(write(tmp_path, theirs))
    assert mean_largest_attention(theirs, tokens) >= 0.5
    assert ours(tokens).dtype == torch.float32
    assert_same_logits(ours(tokens), true_logits(theirs, tokens))


@pytest.mark.parametrize("settings", REAL.values(), ids=REAL)
def test_shape_reduced_real_checkpoints(settings: dict, tmp_path: Path) -> None:
    sizes = {"n_embd": 16 * settings["n_head"], "n_head": settings["n_head"], "vocab_size": 79}
    theirs = lively_model(**sizes)
    write(tmp_path, theirs)
    edit_config(tmp_path, **{**COMMON, **settings, **sizes, "n_positions": 24})
    tokens = random_tokens(79)
    assert_same_logits(load(tmp_path)(tokens), true_logits(theirs, tokens))


@pytest.mark.parametrize("settings", [{}, SHAPES["head 64"], SHAPES["inverse layer"]])
def test_ragged_right_padded_batches(settings: dict, tmp_path: Path) -> None:
    theirs = lively_model(**settings)
    ours, tokens = load(write(tmp_path, theirs)), random_tokens(61, N=4, T=13)
    real = torch.arange(13) < torch.tensor([[13], [9], [4], [1]])
    padded = torch.where(real, tokens, 0)
    truth = true_logits(theirs, padded, real.long())
    assert_same_logits(ours(padded)[real], truth[real])
    for row, length in enumerate(real.sum(1).tolist()):
        alone = true_logits(theirs, tokens[row : row + 1, :length])
        assert_same_logits(ours(padded)[row : row + 1, :length], alone)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("activation_function", "gelu"),
        ("activation_function", "relu"),
        ("layer_norm_epsilon", 0.1),
        ("scale_attn_by_inverse_layer_idx", True),
        ("scale_attn_weights", False),
    ],
)
def test_a_flag_in_the_file_changes_the_logits(name: str, value: object, tmp_path: Path) -> None:
    theirs, tokens = lively_model(), random_tokens(61)
    write(tmp_path, theirs)
    edit_config(tmp_path, **{name: value})
    changed = load(tmp_path)(tokens)
    assert logits_error(changed, true_logits(theirs, tokens)) > 20 * TOLERANCE
    again = GPT2LMHeadModel.from_pretrained(tmp_path, attn_implementation="eager")
    assert_same_logits(changed, true_logits(again, tokens))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("settings", [{}, {"tie_word_embeddings": False}], ids=["tied", "untied"])
def test_other_precisions_become_fp32(dtype: torch.dtype, settings: dict, tmp_path: Path) -> None:
    write(tmp_path, lively_model(**settings), dtype)
    assert load_file(tmp_path / "model.safetensors")["transformer.wpe.weight"].dtype == dtype
    theirs = GPT2LMHeadModel.from_pretrained(
        tmp_path, dtype=torch.float32, attn_implementation="eager"
    )
    ours, tokens = load(tmp_path), random_tokens(61)
    assert all(tensor.dtype == torch.float32 for tensor in ours.weights.tensors())
    assert_same_logits(ours(tokens), true_logits(theirs, tokens))


@pytest.mark.parametrize("settings", [{}, {"tie_word_embeddings": False}], ids=["tied", "untied"])
def test_sharded_files(settings: dict, tmp_path: Path) -> None:
    theirs, tokens = lively_model(**settings), random_tokens(61)
    theirs.save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    assert_same_logits(load(tmp_path)(tokens), true_logits(theirs, tokens))
    # Without the index the files still make one complete model.
    (tmp_path / "model.safetensors.index.json").unlink()
    assert_same_logits(load(tmp_path)(tokens), true_logits(theirs, tokens))


@pytest.mark.parametrize("mask_dtype", [torch.float32, torch.uint8, torch.bool])
@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_the_form_of_old_gpt2_files(prefix: str, mask_dtype: torch.dtype, tmp_path: Path) -> None:
    theirs, tokens = lively_model(), random_tokens(61)
    write(tmp_path, theirs)
    with edited(tmp_path / "model.safetensors") as tensors:
        plain = {name.removeprefix("transformer."): tensors.pop(name) for name in [*tensors]}
        for layer in range(2):
            mask = torch.ones(24, 24, dtype=mask_dtype).tril().view(1, 1, 24, 24)
            plain[f"h.{layer}.attn.bias"] = mask
            plain[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
        tensors.update({prefix + name: tensor for name, tensor in plain.items()})
        tensors["lm_head.weight"] = plain["wte.weight"].clone()
    ours = load(tmp_path)
    assert ours.weights.unembed is ours.weights.wte
    assert_same_logits(ours(tokens), true_logits(theirs, tokens))


def test_a_base_model_without_head_is_tied(tmp_path: Path) -> None:
    theirs, tokens = lively_model(), random_tokens(61)
    theirs.transformer.save_pretrained(tmp_path)
    assert "wte.weight" in load_file(tmp_path / "model.safetensors")
    assert_same_logits(load(tmp_path)(tokens), true_logits(theirs, tokens))


def test_square_matrices_keep_their_orientation(tmp_path: Path) -> None:
    theirs = lively_model(n_inner=SMALL["n_embd"])
    first, block = load(write(tmp_path, theirs)).weights.blocks[0], theirs.transformer.h[0]
    for ours, module in [
        (first.w_o, block.attn.c_proj),
        (first.w_in, block.mlp.c_fc),
        (first.w_out, block.mlp.c_proj),
    ]:
        assert torch.equal(ours, module.weight)
        x = torch.randn(5, SMALL["n_embd"], generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(x @ ours + module.bias, module(x))


def _parts() -> list[tuple[str, int | None]]:
    """Every tensor of SMALL, and the q, k and v parts (0, 1, 2) of the joint ones."""
    with torch.device("meta"):
        names = [name for name, _ in lively_model(tie_word_embeddings=False).named_parameters()]
    joint = [(name, part) for name in names if ".c_attn." in name for part in range(3)]
    return [(name, None) for name in names] + joint


@pytest.fixture(scope="module")
def untied(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, GPT2LMHeadModel]:
    theirs = lively_model(tie_word_embeddings=False)
    return write(tmp_path_factory.mktemp("untied"), theirs), theirs


@pytest.mark.parametrize(("name", "part"), _parts())
def test_every_tensor_matters(name: str, part: int | None, untied, tmp_path: Path) -> None:
    directory, theirs = untied
    for file in ("config.json", "model.safetensors"):
        (tmp_path / file).write_bytes((directory / file).read_bytes())
    with edited(tmp_path / "model.safetensors") as tensors:
        chosen = tensors[name] if part is None else tensors[name].chunk(3, -1)[part]
        chosen.fill_(1.0 if ".ln_" in name and name.endswith("weight") else 0.0)
    tokens = random_tokens(61, N=4, T=16)
    error = logits_error(load(tmp_path)(tokens), true_logits(theirs, tokens))
    if name.endswith("bias") and part == 1:
        # A key bias adds the same to all scores of a query: softmax cannot see it.
        assert error < TOLERANCE
    else:
        assert error > 1e-2


@pytest.mark.parametrize("settings", [{}, {"tie_word_embeddings": False}], ids=["tied", "untied"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_transformers_model_is_copied(dtype: torch.dtype, settings: dict) -> None:
    theirs, tokens = lively_model(**settings).to(dtype), random_tokens(61)
    ours = load(theirs)
    truth = true_logits(theirs.to(torch.float32), tokens)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.zero_()
    assert_same_logits(ours(tokens), truth)
    assert (ours.weights.unembed is ours.weights.wte) == (not settings)
    assert (ours.name, ours.tokenizer) == ("GPT2LMHeadModel", None)


def test_a_gpt2_comes_back_as_it_is() -> None:
    model = GPT2.random(GPT2Config(**SMALL))
    assert load(model) is model


def test_weights_are_memory_of_their_own(tmp_path: Path) -> None:
    tokens = random_tokens(61)
    ours = load(write(tmp_path, lively_model()))
    before = ours(tokens)
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.write(bytes(file.seek(0, os.SEEK_END)))
    assert torch.equal(ours(tokens), before)


def test_names_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = write(tmp_path / "gpt2", lively_model())
    monkeypatch.chdir(tmp_path)
    for source in (directory, str(directory), "gpt2", "./gpt2", Path("gpt2"), "gpt2/"):
        assert load(source).name == "gpt2"
    monkeypatch.chdir(directory)
    assert load(".").name == "gpt2"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load("~/gpt2").name == "gpt2"


def test_demo_is_the_bundled_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "demo", lively_model(seed=1))
    bundled = write(tmp_path / "bundled", lively_model(seed=2))
    monkeypatch.setattr(checkpoint, "_DEMO", bundled)
    assert load("demo").name == load("./demo").name == "demo"
    assert load("demo").weight_hash() == load(bundled).weight_hash()
    assert load("./demo").weight_hash() != load(bundled).weight_hash()


def test_the_tokenizer_comes_with_the_directory(tmp_path: Path) -> None:
    write(tmp_path, lively_model())
    assert load(tmp_path).tokenizer is None
    words = tokenizers.models.WordLevel({"Mary": 3, "John": 4, "?": 0}, unk_token="?")
    tokenizer = tokenizers.Tokenizer(words)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert load(tmp_path).tokenizer.encode("John Mary") == [4, 3]


def test_loading_imports_neither_transformers_nor_the_hub(tmp_path: Path) -> None:
    directory = write(tmp_path, lively_model())
    code = (
        "import sys; from ioi_fast.model.checkpoint import load; load(sys.argv[1]); "
        "print([name for name in ('transformers', 'huggingface_hub') if name in sys.modules])"
    )
    command = [sys.executable, "-P", "-c", code, str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
