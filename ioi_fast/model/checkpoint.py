"""`load`: a GPT-2 from the bundled checkpoint, a directory, the Hugging Face hub or transformers.

Everything becomes fp32 in memory; what is not exactly a GPT-2 is refused by name.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ioi_fast.model.build_weights import build_weights
from ioi_fast.model.config import GPT2Config
from ioi_fast.model.from_transformers import (
    check_as_its_config,
    is_transformers_gpt2,
    tensors_in_memory,
)
from ioi_fast.model.gpt2 import GPT2, Weights
from ioi_fast.model.hub import fetch
from ioi_fast.model.plain_names import by_plain_name
from ioi_fast.model.stored_tensor import StoredTensor
from ioi_fast.model.tensor_files import PICKLE_SUFFIXES, stored_tensors
from ioi_fast.outside.json_files import read_json_object
from ioi_fast.outside.quoting import cut, quoted

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

_DEMO = Path(__file__).parents[1] / "demo" / "checkpoint"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def load(
    source: str | os.PathLike | GPT2 | GPT2LMHeadModel,
    *,
    device: str | torch.device = "cpu",
    revision: str | None = None,
) -> GPT2:
    """A GPT-2 in fp32 on a device.

    `source` is "demo" (the bundled model), a directory with config.json and *.safetensors, the id
    of a model on the Hugging Face hub, a transformers.GPT2LMHeadModel (its weights are copied) or a
    GPT2 (only moved). A directory that exists wins over a hub id of the same name, "demo" over both
    (write "./demo" for a directory); `revision` is a branch, tag or commit of a hub id.

    Heads of training that stand beside the language model are left out, and two different matrices
    of which the config says that they are tied stay two; either is said in one warning.

    A WordPiece tokenizer, as GPT-2s for Chinese have, is not read: it is left out with a warning.

    Raises TypeError for another source and for weights of a model that are no plain tensors in
    memory (on "meta", sparse, quantised), ValueError naming file and tensor for what is not a sound
    GPT-2, and what `ioi_fast.model.hub.fetch` raises.

    >>> load("gpt2").name  # doctest: +SKIP
    'gpt2'
    """
    device = _usable(device)
    if isinstance(source, (str, os.PathLike)):
        directory, name = _locate(source, revision)
        return _from_directory(directory, name).to(device=device)
    if revision is not None:
        raise ValueError(f"revision is for a model of the Hugging Face hub, got {quoted(revision)}")
    if isinstance(source, GPT2):
        return source.to(device=device)
    if is_transformers_gpt2(source):
        return _from_transformers(source).to(device=device)
    raise TypeError(
        "source must be 'demo', a directory, a Hugging Face id, a transformers.GPT2LMHeadModel or "
        f"a GPT2, got {type(source).__name__}"
    )


def _from_directory(directory: Path, name: str) -> GPT2:
    """A GPT-2 from a directory in Hugging Face's layout, its tokenizer None if it brings none, or,
    with a warning, one of BERT's kind.

    Raises ValueError naming file and tensor.
    """
    from ioi_fast.tokenizer import Tokenizer
    from ioi_fast.tokenizer.refused_forms import WordPieceTokenizer

    path = directory / "config.json"
    if not path.is_file():
        raise ValueError(f"{path} does not exist: a checkpoint needs it beside its *.safetensors")
    config = _config(read_json_object(path), str(path))
    config, weights = _language_model(config, *stored_tensors(directory))
    try:
        tokenizer = Tokenizer.from_directory(directory)
    except WordPieceTokenizer as reason:
        warnings.warn(f"the model has no tokenizer here: {cut(reason)}", stacklevel=3)
        tokenizer = None
    return GPT2(config, weights, tokenizer=tokenizer, name=name)


def _from_transformers(model: GPT2LMHeadModel) -> GPT2:
    """A GPT-2 with a copy of the weights of a transformers model; ValueError naming the tensor."""
    where = type(model).__name__
    check_as_its_config(model)
    config = _config(model.config.to_dict(), f"config of the {where}")
    config, weights = _language_model(config, tensors_in_memory(model, where), where)
    return GPT2(config, weights, name=Path(model.name_or_path).name or where)


def _language_model(
    config: GPT2Config, stored: Iterable[StoredTensor], where: str | Path
) -> tuple[GPT2Config, Weights]:
    """Config and weights of the language model among stored tensors; says what is not as usual."""
    tensors = by_plain_name(stored)
    found, weights = build_weights(config, tensors.model, str(where))
    if tensors.heads:
        names = cut(", ".join(tensor.name for tensor in tensors.heads))
        warnings.warn(f"{where}: left out, heads beside the language model: {names}", stacklevel=4)
    if found.tie_word_embeddings != config.tie_word_embeddings:
        warnings.warn(
            f"{where}: lm_head.weight and wte.weight differ although the config ties them: the "
            "model is untied, as transformers 5 makes it",
            stacklevel=4,
        )
    return found, weights


def _config(settings: dict, where: str) -> GPT2Config:
    try:
        return GPT2Config.from_dict(settings)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _locate(source: str | os.PathLike, revision: str | None) -> tuple[Path, str]:
    """Where the checkpoint that a path or a name stands for lies, and what to call the model."""
    given = os.fspath(source)
    path = Path(os.path.expanduser(given))
    local = given == "demo" or (given != "" and path.is_dir())
    if local and revision is not None:
        raise ValueError(f"revision is for a model of the Hugging Face hub, got {quoted(revision)}")
    if given == "demo":
        return _DEMO, "demo"
    if local:
        return path, path.resolve().name
    if path.is_file():
        pickled = "pickle files are never opened; " if path.suffix in PICKLE_SUFFIXES else ""
        raise ValueError(f"source: {path} is a file; {pickled}give the directory of a checkpoint")
    if isinstance(source, str) and _HUB_ID.fullmatch(source) and not _names_a_file(path):
        return fetch(source, revision), source
    raise ValueError(
        f"source: there is no directory {quoted(given)}, and it is not 'demo' or a Hugging Face id "
        "such as 'gpt2'"
    )


def _names_a_file(path: Path) -> bool:
    return path.suffix in PICKLE_SUFFIXES | {".safetensors", ".json"}


def _usable(device: str | torch.device) -> torch.device:
    """The device, tried out before any work; ValueError when torch cannot use it here."""
    try:
        return torch.empty(0, device=torch.device(device)).device
    except (RuntimeError, TypeError, AssertionError) as error:
        raise ValueError(
            f"device must be one that torch can use here, got {quoted(device)}"
        ) from error
