"""What `load` refuses: the message names the file, and the tensor where there is one."""

from __future__ import annotations

import json
import pickle
import re
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from checkpoints import edit_config, edited, lively_model, refused, write
from transformers import GPT2ForSequenceClassification, GPT2Model

from ioi_fast.model.checkpoint import load
from ioi_fast.model.gpt2 import GPT2

Edit = Callable[[dict[str, torch.Tensor]], None]
NAMES = [
    "transformer." + name for name, _ in lively_model().transformer.named_parameters(recurse=True)
]
C_ATTN = "transformer.h.1.attn.c_attn.weight"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return write(tmp_path / "model", lively_model())


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_tensor(name: str, directory: Path) -> None:
    file = directory / "model.safetensors"
    with edited(file) as tensors:
        del tensors[name]
    refused(directory, file, name.removeprefix("transformer."), "missing")


@pytest.mark.parametrize(
    ("edit", "name", "message"),
    [
        (lambda t: t.update({C_ATTN: t[C_ATTN].T}), C_ATTN, "must have shape [48, 144], got [144"),
        (lambda t: t.update({C_ATTN: t[C_ATTN][None]}), C_ATTN, "[48, 144], got [1, 48, 144]"),
        (lambda t: t.update({C_ATTN: t[C_ATTN].int()}), C_ATTN, "must hold floats"),
        (lambda t: t.update({C_ATTN: t[C_ATTN].bool()}), C_ATTN, "BOOL"),
        (lambda t: t.update({C_ATTN: t[C_ATTN].to(torch.float8_e4m3fn)}), C_ATTN, "F8_E4M3"),
        (lambda t: t.update({C_ATTN: t[C_ATTN] + 0j}), C_ATTN, "C64"),
        (lambda t: t[C_ATTN][5, 7].fill_(torch.nan), C_ATTN, "the first is nan at [5, 7]"),
        (lambda t: t[C_ATTN][5, 7].fill_(torch.inf), C_ATTN, "the first is inf at [5, 7]"),
        (lambda t: t[C_ATTN][-1, -1].fill_(-torch.inf), C_ATTN, "1 of 6912"),
        (lambda t: t.update({C_ATTN: t[C_ATTN].double() * 1e39}), C_ATTN, "infinite"),
        (lambda t: t.update({"lm_head.bias": torch.ones(61)}), "lm_head.bias", "belong"),
        (
            lambda t: t.update({"transformer.h.2.ln_1.bias": torch.ones(48)}),
            "transformer.h.2.ln_1.bias",
            "2 layers",
        ),
        (
            lambda t: t.update({"transformer.h.2.attn.bias": torch.ones(1, 1, 4, 4).tril()}),
            "transformer.h.2.attn.bias",
            "2 layers",
        ),
        (
            lambda t: t.update({"h.0.attn.bias": torch.ones(1, 1, 4, 4)}),
            "h.0.attn.bias",
            "causal mask",
        ),
        (
            lambda t: t.update({"h.0.attn.bias": torch.ones(48)}),
            "h.0.attn.bias",
            "causal mask [1, 1, n, n]",
        ),
        (
            lambda t: t.update({C_ATTN.removeprefix("transformer."): t[C_ATTN] + 1}),
            C_ATTN,
            "twice",
        ),
        (
            lambda t: t.update({"lm_head.weight": t["transformer.wte.weight"][:-1]}),
            "lm_head.weight",
            "[61, 48], got [60, 48]",
        ),
    ],
)
def test_a_wrong_tensor(edit: Edit, name: str, message: str, directory: Path) -> None:
    file = directory / "model.safetensors"
    with edited(file) as tensors:
        edit(tensors)
    refused(directory, file, name, message)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_no_tensor_may_hold_nan_or_infinity(name: str, value: float, directory: Path) -> None:
    file = directory / "model.safetensors"
    with edited(file) as tensors:
        tensors[name].view(-1)[-1] = value
    refused(directory, file, name, "NaN or infinite")


def test_an_untied_model_needs_its_head(directory: Path) -> None:
    edit_config(directory, tie_word_embeddings=False)
    refused(directory, directory / "model.safetensors", "lm_head.weight", "tie_word_embeddings")


def _with_header(header: object, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[:-1],
        lambda raw: raw[: len(raw) // 2],
        lambda raw: raw[:100],
        lambda raw: raw[:5],
        lambda raw: b"",
        lambda raw: raw + b"\0",
        lambda raw: b"\xff" * 8 + raw[8:],
        lambda raw: raw[:8] + b"?" + raw[9:],
        lambda raw: pickle.dumps({"a": 1}),
        lambda raw: b"PK\x03\x04" + raw,
        lambda raw: _with_header([]),
        lambda raw: _with_header({"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}),
        lambda raw: _with_header(
            {"a": {"dtype": "F32", "shape": [1], "data_offsets": [8, 12]}}, bytes(4)
        ),
    ],
)
def test_a_damaged_file(damage: Callable[[bytes], bytes], directory: Path) -> None:
    file = directory / "model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    refused(directory, file, "truncated, corrupt or not a safetensors file")


def test_a_truncated_file_names_the_tensor_that_is_cut(directory: Path) -> None:
    file = directory / "model.safetensors"
    raw = file.read_bytes()
    header_size = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + header_size])
    header.pop("__metadata__")
    for name, entry in header.items():
        file.write_bytes(raw[: 8 + header_size + entry["data_offsets"][1] - 1])
        refused(directory, file, repr(name))


def test_pickle_files_are_never_opened(directory: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"

    class Trap:
        def __reduce__(self):
            return open, (str(marker), "w")

    trap = pickle.dumps(Trap())
    pickle.loads(trap).close()
    assert marker.exists()  # the trap works
    marker.unlink()
    weights = directory / "model.safetensors"
    for name in ("pytorch_model.bin", "model.pt", "training.ckpt"):
        (directory / name).write_bytes(trap)
    load(directory)  # beside a sound file they are no matter
    weights.unlink()
    refused(directory, directory, "pytorch_model.bin", "never opened")
    refused(directory / "model.pt", "model.pt", "never opened")
    weights.write_bytes(trap)
    refused(directory, weights, "not a safetensors file")
    assert not marker.exists()


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", '{"a": NaN, }', '{"n_layer": 2, "n_l'])
def test_a_config_that_is_no_json_object(content: str, directory: Path) -> None:
    (directory / "config.json").write_text(content)
    refused(directory, directory / "config.json", "JSON")


def test_a_setting_given_twice(directory: Path) -> None:
    text = (directory / "config.json").read_text().strip().rstrip("}")
    (directory / "config.json").write_text(text + ', "n_head": 6}')
    refused(directory, directory / "config.json", "'n_head' is given twice")


def test_a_config_that_is_not_utf8(directory: Path) -> None:
    (directory / "config.json").write_bytes(b'{"model_type": "\xff"}')
    refused(directory, directory / "config.json")


@pytest.mark.parametrize(
    "settings",
    [
        {"model_type": "gpt_neo"},
        {"activation_function": "silu"},
        {"add_cross_attention": True},
        {"rotary_dim": 16},
        {"n_head": 5},
    ],
)
def test_a_config_that_is_not_gpt2(settings: dict, directory: Path) -> None:
    edit_config(directory, **settings)
    refused(directory, directory / "config.json", *settings)


def test_sizes_of_the_config_that_the_file_does_not_have(directory: Path) -> None:
    edit_config(directory, n_layer=10**12)
    refused(directory, directory / "model.safetensors", "'h.2.ln_1.weight' is missing")
    edit_config(directory, n_layer=1)
    refused(directory, "transformer.h.1.", "does not belong")


def test_missing_files(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", tmp_path / "empty" / "config.json", "does not exist")
    (directory / "model.safetensors").unlink()
    refused(directory, directory, "no *.safetensors file")


def test_adapters(directory: Path) -> None:
    (directory / "adapter_config.json").write_text("{}")
    refused(directory, directory / "adapter_config.json", "merge")


def test_sources_that_are_none(tmp_path: Path, directory: Path) -> None:
    nowhere = tmp_path / "nowhere"
    for source in (nowhere, str(nowhere), "./nowhere", "a/b/c", "", "..gpt2", "model.safetensors"):
        refused(source, f"there is no directory {str(source)!r}")
    refused(directory / "model.safetensors", "is a file", "give the directory")
    for other in (None, 3, b"gpt2", torch.nn.Linear(2, 2)):
        with pytest.raises(TypeError, match=f"source must be .* got {type(other).__name__}"):
            load(other)


def test_other_models_of_transformers() -> None:
    config = lively_model().config
    for other in (GPT2Model(config), GPT2ForSequenceClassification(config)):
        with pytest.raises(TypeError, match=type(other).__name__):
            load(other)


def test_a_transformers_model_with_wrong_weights() -> None:
    model = lively_model()
    with torch.no_grad():
        model.transformer.h[1].mlp.c_fc.bias[3] = torch.nan
    refused(model, "GPT2LMHeadModel", "transformer.h.1.mlp.c_fc.bias", "nan at [3]")
    refused(lively_model(activation_function="silu"), "GPT2LMHeadModel", "activation_function")
    with_adapter = lively_model()
    with_adapter.transformer.h[0].mlp.extra = torch.nn.Linear(2, 2)
    refused(with_adapter, "transformer.h.0.mlp.extra.weight", "does not belong")


@pytest.mark.parametrize("device", ["nonsense", "cuda:77", None, 3.5])
def test_devices_that_are_not_there(device: object, directory: Path) -> None:
    refused(directory, f"device must be one that torch can use here, got {device!r}", device=device)


def test_a_revision_belongs_to_the_hub(directory: Path) -> None:
    for source in ("demo", directory, lively_model(), GPT2.random(load(directory).config)):
        refused(source, "revision is for a model of the Hugging Face hub", revision="main")


def test_messages_read_well(directory: Path) -> None:
    file = directory / "model.safetensors"
    with edited(file) as tensors:
        tensors["transformer.wpe.weight"] = tensors["transformer.wpe.weight"].T
    with pytest.raises(ValueError) as caught:
        load(directory)
    assert re.fullmatch(
        re.escape(f"{file}: tensor 'transformer.wpe.weight' must have shape [24, 48], got [48, 24]")
        + r" \(GPT-2's matrices lie \[in, out\], embeddings \[entries, width\]\)",
        str(caught.value),
    )
