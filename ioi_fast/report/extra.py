"""The one place that fetches packages of the `report` extra, with a message when one is missing."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType


def require(name: str) -> ModuleType:
    """The module of that name; ImportError saying how to install it when it is not there."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        package = name.partition(".")[0]
        if (error.name or "").partition(".")[0] != package:
            raise
        raise ImportError(
            f"{package} is needed for reports and progress bars, and is not installed: "
            "pip install 'ioi_fast[report]'"
        ) from error
