"""The shapes that the engine hands to its kernels in each job, recorded while the jobs run.

Whole numbers (positions, tables, variants and heads) are kept as they are handed over; all others
are drawn anew, in the same shapes and strides.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, wraps

import torch
from torch import Tensor

from ioi_fast import GPT2, GPT2Config
from ioi_fast.benchmarks.gpu.jobs.job import job
from ioi_fast.benchmarks.gpu.setting import Setting

OPERATIONS = (
    "layernorm_delta",
    "readout_delta",
    "gelu_delta",
    "head_write",
    "mlp_in_delta",
    "attention_delta",
)
SETS, LAYERS = 200, 3  # of J4's knock-outs, and of the model that J5 is recorded on
# Sizes of what is drawn; differences are small beside what they change.
_SIZES = {"x_RD": 3.0, "weight_DF": 0.02, "w_o_HKD": 0.02, "rows_RD": 0.1, "sources": 0.1}


@dataclass(frozen=True, slots=True)
class Shape:
    """A tensor as it was handed over; whole numbers with what the first of their shape held."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype
    values: Tensor | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, given: Tensor) -> Shape:
        values = None if given.is_floating_point() else given.detach().clone()
        return cls(tuple(given.shape), given.stride(), given.dtype, values)

    @property
    def elements(self) -> int:
        """Different places in memory; an axis of stride 0 has one."""
        count = 1
        for size, stride in zip(self.sizes, self.strides, strict=True):
            count *= size if stride else min(size, 1)
        return count

    @property
    def bytes(self) -> int:
        return self.elements * self.dtype.itemsize

    def drawn(self, generator: torch.Generator, size: float) -> Tensor:
        """Normal numbers in this shape and these strides, on the generator's device."""
        if self.values is not None:
            return self.values.to(generator.device)
        span = 1 + sum((n - 1) * step for n, step in zip(self.sizes, self.strides, strict=True))
        memory = torch.randn(max(1, span), generator=generator, device=generator.device)
        return (memory * size).to(self.dtype).as_strided(self.sizes, self.strides)

    def __str__(self) -> str:
        plain = tuple(torch.empty(self.sizes, device="meta").stride())
        text = f"{str(self.dtype).removeprefix('torch.')} {'×'.join(map(str, self.sizes))}"
        return text if self.strides == plain else f"{text} by {','.join(map(str, self.strides))}"


@dataclass(frozen=True, slots=True)
class Call:
    """An operation with what it was given but for a precision."""

    operation: str
    arguments: tuple[tuple[str, Shape | float | str | None], ...]

    def __getitem__(self, name: str) -> Shape | float | str | None:
        return dict(self.arguments).get(name)

    def inputs(self, device: torch.device, seed: int = 0) -> dict[str, object]:
        """Arguments by name: random numbers on the device where tensors stand."""
        generator = torch.Generator(device).manual_seed(seed)
        return {
            name: value.drawn(generator, size_of(name)) if isinstance(value, Shape) else value
            for name, value in self.arguments
        }

    def described(self) -> dict[str, str]:
        """Arguments in words."""
        return {name: str(value) for name, value in self.arguments if value is not None}


def size_of(name: str) -> float:
    """How large the numbers of an argument are."""
    return 0.1 if name.startswith("delta") else _SIZES.get(name, 1.0)


@contextmanager
def recording() -> Iterator[Counter[Call]]:
    """While it is open every call of an operation is counted."""
    from ioi_fast.kernels import triton_ops

    seen: Counter[Call] = Counter()
    before = {name: getattr(triton_ops, name) for name in OPERATIONS}
    for name, operation in before.items():
        setattr(triton_ops, name, _counted(operation, seen))
    try:
        yield seen
    finally:
        for name, operation in before.items():
            setattr(triton_ops, name, operation)


def _counted(operation: Callable[..., Tensor], seen: Counter[Call]) -> Callable[..., Tensor]:
    signature = inspect.signature(operation)

    @wraps(operation)
    def counted(*given: object, **more: object) -> Tensor:
        bound = signature.bind(*given, **more).arguments
        arguments = tuple(
            (name, Shape.of(value) if isinstance(value, Tensor) else value)
            for name, value in bound.items()
            if name != "precision"
        )
        seen[Call(operation.__name__, arguments)] += 1
        return operation(*given, **more)

    return counted


@cache
def calls_of(setting: Setting, name: str) -> Counter[Call]:
    """Every call of a job in fp32 and how often it is made, recorded once a process.

    Of J4 the first sets, and J5 on a model of few layers: the same shapes in less time.
    """
    if setting.dry and name == "J1 at N=100":  # where all jobs have the same prompts
        return calls_of(setting, "J1")
    model, more = setting.model, {}
    found = job(name, setting.dry)
    if not setting.dry and name == "J4":
        more = {"variants": found.asked["variants"][:SETS]}
    if not setting.dry and name == "J5":
        model = GPT2.random(GPT2Config(n_layer=LAYERS), seed=0).to(device=setting.gpu)
    with recording() as seen:
        found.run(model, "fp32", **more)
    return seen


def recorded_on(setting: Setting, name: str) -> str:
    """What of a job was recorded."""
    if setting.dry:
        return "a small model"
    return {"J4": f"its first {SETS} sets", "J5": f"{LAYERS} layers"}.get(name, "the whole job")


def heaviest(calls: Counter[Call], operation: str, work: Callable[[Call], int]) -> Call | None:
    """Of an operation's calls the shape that takes the most in all; None if there is no call."""
    mine = {call: count for call, count in calls.items() if call.operation == operation}
    return max(mine, key=lambda call: mine[call] * work(call), default=None)
