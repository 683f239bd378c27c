"""Fetching a checkpoint from the Hugging Face hub into the hub's own cache."""

from __future__ import annotations

from pathlib import Path

# The weights as safetensors only: pickle files are never fetched.
_WANTED = [
    "config.json",
    "adapter_config.json",  # wanted for its refusal
    "*.safetensors",
    "*.safetensors.index.json",
]
_INSTEAD = (
    "download the model where there is a network and give its directory, or use the bundled model "
    "'demo'"
)


def fetch(repository: str, revision: str | None = None) -> Path:
    """Directory with config, weights and tokenizer of a hub model; from the cache when offline.

    Raises ImportError without the package huggingface_hub, ValueError when the hub has no such
    model or no safetensors of it, ConnectionError when it can't be reached and the cache is empty.

    >>> fetch("gpt2")  # doctest: +SKIP
    PosixPath('/home/me/.cache/huggingface/hub/models--gpt2/snapshots/607a30d…')
    """
    from ioi_fast.tokenizer.files import READ
    from ioi_fast.tokenizer.refused_forms import UNREAD

    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            HFValidationError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ImportError as error:
        raise ImportError(
            f"{repository!r} is no directory here, and fetching it from the Hugging Face hub needs "
            f"huggingface_hub: pip install 'ioi_fast[hub]'; or {_INSTEAD}"
        ) from error
    try:
        directory = snapshot_download(
            repository,
            revision=revision,
            allow_patterns=[*_WANTED, *READ, *UNREAD],  # UNREAD for its refusal
            ignore_patterns=["*/*"],
        )
    except HFValidationError as error:
        raise ValueError(
            f"source: {repository!r} is neither a directory here nor an id that the Hugging Face "
            f"hub takes: {_first_line(error)}"
        ) from error
    except RepositoryNotFoundError as error:
        raise ValueError(
            f"source: {repository!r} is neither a directory here nor a model on the Hugging Face "
            f"hub that you may read (a private or gated one needs `hf auth login`)"
        ) from error
    except RevisionNotFoundError as error:
        raise ValueError(f"revision: {repository!r} has no revision {revision!r}") from error
    except Exception as error:  # transport errors are of other classes in each version of the hub
        raise ConnectionError(
            f"{repository!r} is no directory here and could not be fetched from the Hugging Face "
            f"hub ({_first_line(error)}): {_INSTEAD}"
        ) from error
    if not any(Path(directory).glob("*.safetensors")):
        raise ValueError(
            f"source: {repository!r} on the Hugging Face hub has no *.safetensors files; pickle "
            "files are never fetched"
        )
    return Path(directory)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
