"""What a machine with a GPU is, for every file of results."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import torch

import ioi_fast
from ioi_fast import benchmarks, kernels
from ioi_fast.benchmarks.results import machine as host_cpu
from ioi_fast.results.revision import revision

INTERPRETER = "Triton's interpreter"


def facts(device: torch.device) -> dict[str, object]:
    """Names and versions of the device, the host and what runs on them."""
    found = {
        "device": INTERPRETER,
        "host_cpu": host_cpu(),
        "cores": processors(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "triton", "numpy", "transformers")},
        "cuda": torch.version.cuda or torch.version.hip,
        "commit": revision() or f"release {version('ioi_fast')}",
        "source": source_hash(),
    }
    if device.type == "cpu":
        return found
    return {**found, **_of_gpu(device)}


def _of_gpu(device: torch.device) -> dict[str, object]:
    one = torch.cuda.get_device_properties(device)
    return {
        "device": one.name,
        "driver": driver(),
        "capability": f"{one.major}.{one.minor}",
        "memory_bytes": one.total_memory,
        "multiprocessors": one.multi_processor_count,
        "second_cache_bytes": getattr(one, "L2_cache_size", None),
    }


def driver() -> str | None:
    """The version of NVIDIA's driver; None where nothing tells."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.split("\n")[0].strip() or None


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def version(package: str) -> str | None:
    """An installed package's version, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def source_hash() -> str:
    """Of all Python and launch tables that a device runs by, also where they are installed."""
    found = hashlib.sha256()
    for package in (ioi_fast, kernels, benchmarks):
        folder = Path(package.__file__).parent
        for path in sorted([*folder.rglob("*.py"), *folder.glob("launches/*.json")]):
            place = path.relative_to(folder)
            # An installed package has the other two inside.
            if package is not ioi_fast or place.parts[0] not in ("kernels", "benchmarks"):
                found.update(f"{package.__name__}/{place}\n".encode() + path.read_bytes())
    return found.hexdigest()[:16]
