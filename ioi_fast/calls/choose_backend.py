"""Which backend runs a call, and why another can't: a named one runs or raises."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch

from ioi_fast.asked.interventions import check_choice
from ioi_fast.calls.surroundings import check_positive
from ioi_fast.engine.choose_ops import room_of, why_not_triton
from ioi_fast.model.gpt2 import GPT2
from ioi_fast.plan.fit_to_memory import Budget

BACKENDS = ("auto", "reference", "cpu", "triton")
PRECISIONS = ("fp32", "tf32", "bf16", "fp64")


@dataclass(frozen=True, slots=True)
class Choice:
    """The backend that runs a call ("reference", "cpu" or "triton"), its precision and limit."""

    backend: str
    precision: str
    max_memory: int | None

    def budget(self, model: GPT2, threads: int | None = None) -> Budget:
        """What the call may take of memory, on so many threads (default: those that torch has)."""
        room = room_of(model.config, self.backend, self.precision, threads)
        return Budget(self.max_memory, room)


def choose(model: GPT2, backend: object, precision: object, max_memory: object) -> Choice:
    """The backend of a call.

    Raises ValueError for an unknown name and RuntimeError with the reason when the named backend
    can't run this. "auto" takes the fast path where it can and says so when it can't.
    """
    check_request(backend, precision, max_memory)
    fast, reason = fast_backend(model, precision, backend)
    if backend in ("cpu", "triton") and reason is not None:
        raise RuntimeError(f"backend {backend!r} can't run this: {reason}")
    if backend != "reference" and reason is None:
        return Choice(fast, precision, max_memory)
    if precision in ("tf32", "bf16"):
        because = f" (the fast path can't run this: {reason})" if reason else ""
        raise RuntimeError(f"precision {precision!r} belongs to the fast path{because}")
    if max_memory is not None:
        raise RuntimeError(
            "backend 'reference' can't bound its memory: leave max_memory out"
            + (f" (the fast path can't run this: {reason})" if reason else "")
        )
    if backend == "auto" and precision != "fp64":
        warnings.warn(f"ioi_fast runs the reference backend, slowly: {reason}", stacklevel=3)
    return Choice("reference", precision, None)


def fast_backend(model: GPT2, precision: str, backend: str) -> tuple[str, str | None]:
    """The fast backend of a call, which goes where the model is unless it is named, and the reason
    why it can't run the call, or None."""
    name = backend
    if backend not in ("cpu", "triton"):
        name = "cpu" if model.device.type == "cpu" else "triton"
    if precision == "fp64":
        return name, "precision 'fp64' belongs to the reference backend"
    if model.dtype != torch.float32:
        dtype = str(model.dtype).removeprefix("torch.")
        return name, f"the weights are {dtype}, not float32"
    if name == "triton":
        return name, why_not_triton(model.device, precision)
    if precision == "tf32":
        return name, "precision 'tf32' is of GPUs, backend 'triton'"
    elsewhere = model.device.type != "cpu"
    return name, f"the model is on {model.device}" if elsewhere else None


def check_request(backend: object, precision: object, max_memory: object) -> None:
    """Raises ValueError or TypeError for an unknown backend or precision, or no size in bytes."""
    check_choice(backend, BACKENDS, "backend")
    check_choice(precision, PRECISIONS, "precision")
    check_positive(max_memory, "max_memory", "a number of bytes")
