"""GPT-2 checkpoints for tests, written with transformers, and its logits as the truth.

Their weights make every term count: biases are not zero, LayerNorm gains not one, and attention is
far from uniform, so that a tensor that is dropped or misread shows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from ioi_fast.model.checkpoint import load

# Largest difference of a logit, relative to the root mean square of the logits (never more than
# their maximum, so this is the stricter scale). The promise is 1e-4; fp32 gives 2e-6 to 6e-6.
TOLERANCE = 2e-5

SMALL = {"vocab_size": 61, "n_positions": 24, "n_embd": 48, "n_layer": 2, "n_head": 3}


def lively_model(seed: int = 0, **settings) -> GPT2LMHeadModel:
    """A transformers model (eager attention, fp32) of SMALL with other settings, lively weights."""
    config = GPT2Config(**{**SMALL, "bos_token_id": 0, "eos_token_id": 0, **settings})
    config._attn_implementation = "eager"
    model = GPT2LMHeadModel(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            _fill(name, tensor, config, generator)
    return model


def _fill(name: str, tensor: Tensor, config: GPT2Config, generator: torch.Generator) -> None:
    if ".ln_" in name and name.endswith("weight"):
        tensor.uniform_(0.6, 1.4, generator=generator)
    elif name.endswith("bias"):
        tensor.normal_(0, 0.3, generator=generator)
    elif tensor.dim() == 2 and ".h." not in name:
        tensor.normal_(0, 0.5, generator=generator)
    else:
        tensor.normal_(0, tensor.shape[0] ** -0.5, generator=generator)
    if name.endswith("c_attn.weight"):
        D = config.n_embd
        peak = 5.0  # about the standard deviation of the scores
        if not config.scale_attn_weights:
            peak /= (D // config.n_head) ** 0.5
        if config.scale_attn_by_inverse_layer_idx:
            peak *= int(name.split(".")[2]) + 1
        tensor[:, : 2 * D] *= peak**0.5


def write(directory: Path, model: GPT2LMHeadModel, dtype: torch.dtype = torch.float32) -> Path:
    """Save config.json and model.safetensors with transformers; the model is left in fp32."""
    model.to(dtype).save_pretrained(directory)
    model.to(torch.float32)
    return directory


@contextmanager
def edited(file: Path) -> Iterator[dict[str, Tensor]]:
    """The tensors of a safetensors file, written back with what was changed."""
    tensors = load_file(file)
    yield tensors
    save_file({name: t.clone().contiguous() for name, t in tensors.items()}, file, {"format": "pt"})


def edit_config(directory: Path, **settings) -> None:
    """Change settings of a config.json."""
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def random_tokens(vocab_size: int, N: int = 3, T: int = 11, seed: int = 1) -> Tensor:
    """Token ids, [N, T]."""
    return torch.randint(vocab_size, (N, T), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def true_logits(model: GPT2LMHeadModel, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
    """Logits of transformers, [N, T] -> [N, T, V]."""
    return model(tokens, attention_mask=mask).logits


def logits_error(got: Tensor, truth: Tensor) -> float:
    """max |got − truth| / rms(truth); raises AssertionError for other shapes and for NaN."""
    if got.shape != truth.shape or not got.numel():
        raise AssertionError(f"logits have shape {list(got.shape)}, expected {list(truth.shape)}")
    got, truth = got.double(), truth.double()
    error = float((got - truth).abs().max() / truth.square().mean().sqrt())
    if not error < float("inf"):
        raise AssertionError("logits are not finite")
    return error


def assert_same_logits(got: Tensor, truth: Tensor, tolerance: float = TOLERANCE) -> None:
    """Raises AssertionError unless logits agree within the tolerance."""
    error = logits_error(got, truth)
    if not error <= tolerance:
        raise AssertionError(f"logits differ by {error:.2e} of their scale, allowed {tolerance:g}")


@torch.no_grad()
def mean_largest_attention(model: GPT2LMHeadModel, tokens: Tensor) -> float:
    """Mean of the largest weight of a query, over layers, heads and queries with ≥ 4 keys."""
    patterns = torch.stack(model(tokens, output_attentions=True).attentions)
    return float(patterns[..., 3:, :].amax(-1).mean())


def refused(source: object, *parts: object, **arguments: object) -> None:
    """Raises unless `load` refuses with a message that holds every part."""
    with pytest.raises(ValueError) as caught:
        load(source, **arguments)
    for part in parts:
        assert str(part) in str(caught.value)
