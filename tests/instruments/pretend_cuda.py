"""Torch's words for a GPU on a machine without one: events that read the host's clock, memory that
nobody counts. With pretend_device.py what is written for a GPU runs to its end."""

from __future__ import annotations

import time
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

NAME = "A Pretended GPU"


class Event:
    """A moment of the host."""

    def __init__(self, enable_timing: bool = False) -> None:
        assert enable_timing
        self.at = 0.0

    def record(self) -> None:
        self.at = time.perf_counter()

    def synchronize(self) -> None:
        assert self.at, "was never recorded"

    def elapsed_time(self, end: Event) -> float:
        """Milliseconds."""
        return 1e3 * (end.at - self.at)


class Generator(torch.Generator):
    """Draws on the host, whatever device is named."""

    def __new__(cls, device: object = None) -> Generator:
        return super().__new__(cls)


def pretend_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts the words in torch.cuda's place."""
    words = {
        "Event": Event,
        "synchronize": lambda device=None: None,
        "device": nullcontext,
        "mem_get_info": lambda device=None: (2**30, 2**36),
        "memory_reserved": lambda device=None: 0,
        "memory_allocated": lambda device=None: 2**20,
        "max_memory_allocated": lambda device=None: 3 * 2**20,
        "reset_peak_memory_stats": lambda device=None: None,
        "empty_cache": lambda: None,
        "get_device_properties": lambda device: SimpleNamespace(
            name=NAME,
            major=9,
            minor=0,
            total_memory=2**36,
            multi_processor_count=132,
            L2_cache_size=2**25,
        ),
    }
    for name, word in words.items():
        monkeypatch.setattr(torch.cuda, name, word)
    monkeypatch.setattr(torch, "Generator", Generator)
