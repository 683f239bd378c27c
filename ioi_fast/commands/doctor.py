"""`ioi-fast doctor`: what runs here, what does not and why, shown by running it."""

from __future__ import annotations

import argparse
import platform
from dataclasses import dataclass
from importlib import metadata

import torch

from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.calls.path_patch import path_patch
from ioi_fast.kernels.build import BuildError, find_compiler, load_kernels
from ioi_fast.kernels.choose_linear import ONEDNN, PANELS, ROUNDED, bf16_arithmetic, in_panels
from ioi_fast.kernels.packed_linear import onednn_available
from ioi_fast.model.checkpoint import load
from ioi_fast.model.config import GPT2Config
from ioi_fast.model.gpt2 import GPT2
from ioi_fast.report.terminal import say
from ioi_fast.results.promised_accuracy import PROMISED, sweep_error

_EXTRAS = {
    "report": ("rich", "jinja2"),
    "hub": ("huggingface_hub",),
    "gpu": ("triton",),
    "bench": ("pytest", "pytest-benchmark", "transformers"),
}
_BF16 = {
    PANELS: "in this CPU (AVX-512 BF16), by the C++ kernels",
    ONEDNN: "in this CPU, by oneDNN",
    ROUNDED: "not in this CPU: operands are rounded and multiplied in fp32",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; `needed` findings decide the exit status."""

    what: str
    good: bool
    detail: str
    needed: bool = False

    def __str__(self) -> str:
        mark = "ok " if self.good else ("BAD" if self.needed else "no ")
        return f"{mark}  {self.what:<22} {self.detail}"


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "doctor",
        help="which backends run on this machine, and why others do not",
        description="Checks this machine by running a small sweep on every backend.",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints the findings; returns 1 when something that is needed fails."""
    findings = [*_machine(), *_backends(), _demo(), *_extras()]
    for finding in findings:
        say(finding)
    return 1 if any(finding.needed and not finding.good for finding in findings) else 0


def _machine() -> list[Finding]:
    python = f"Python {platform.python_version()}, torch {torch.__version__}, {platform.machine()}"
    threads = f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
    compiled, onednn = _compiled(), onednn_available()
    panels = in_panels("fp32", compiled)
    packed = "by the C++ kernels (AVX-512)" if panels else "by oneDNN"
    if not (panels or onednn):
        packed = "absent: torch's own are used"
    bf16 = bf16_arithmetic(compiled=compiled)
    compiler = " ".join(find_compiler() or [])
    return [
        Finding("machine", True, f"{python}, {threads}"),
        Finding("packed products", panels or onednn, packed),
        Finding("bf16 arithmetic", bf16 != ROUNDED, _BF16[bf16]),
        Finding("C++ compiler", bool(compiler), compiler or "none found; nothing here needs one"),
    ]


def _compiled() -> bool:
    try:
        load_kernels()
    except BuildError:
        return False
    return True


def _backends() -> list[Finding]:
    model = GPT2.random(GPT2Config(n_layer=2, n_head=2, n_embd=32, vocab_size=40), seed=0)
    tokens = torch.arange(24).view(3, 8)
    pairs = PromptPairs(tokens, tokens.flip(1), [1, 2, 3], [4, 5, 6], {"END": [7, 6, 7]})
    truth = path_patch(model, pairs, backend="reference", precision="fp64").values
    return [_backend(name, model, pairs, truth) for name in ("reference", "cpu", "triton")]


def _backend(name: str, model: GPT2, pairs: PromptPairs, truth: torch.Tensor) -> Finding:
    needed = name != "triton"
    on_gpu = name == "triton" and torch.cuda.is_available()
    try:
        moved = model.to(device="cuda" if on_gpu else "cpu")
        result = path_patch(moved, pairs, backend=name)
        error = sweep_error(result.values, truth)
    except (RuntimeError, AssertionError) as reason:
        return Finding(f"backend {name}", False, str(reason), needed)
    detail = f"runs as {result.backend}; error of a small sweep {error:.1e}"
    return Finding(f"backend {name}", error <= PROMISED["fp32"], detail, needed)


def _demo() -> Finding:
    try:
        model = load("demo")
    except (ValueError, OSError) as reason:
        return Finding("bundled model", False, str(reason), needed=True)
    return Finding("bundled model", True, repr(model), needed=True)


def _extras() -> list[Finding]:
    found = []
    for extra, packages in _EXTRAS.items():
        versions = {package: _version(package) for package in packages}
        missing = [package for package, version in versions.items() if version is None]
        detail = ", ".join(f"{package} {version}" for package, version in versions.items())
        if missing:
            detail = f"{', '.join(missing)} not installed: pip install 'ioi_fast[{extra}]'"
        found.append(Finding(f"extra {extra}", not missing, detail))
    return found


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
