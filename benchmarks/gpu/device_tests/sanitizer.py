"""What compute-sanitizer watches: every kernel at one small shape, and two planted faults.

`python -m ioi_fast.benchmarks.gpu.device_tests.sanitizer KERNELS|memcheck-fault|initcheck-fault …`
prints a line of JSON for each kernel that ran. Inputs are drawn on the host and copied, results are
copied back and looked at there: on the device there are copies, what torch does inside an
operation, and our kernels. With TRITON_INTERPRET=1 the tests' own guard watches addresses, and NaN
stands where nobody wrote.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import triton
from torch import Tensor

from ioi_fast.benchmarks.gpu.device_tests.pytest_runs import TESTS
from ioi_fast.kernels import triton_ops, triton_tiles

FAULTY = "gelu_delta_kernel"  # the kernel of both planted faults
HELD, TOLD = 64, 72  # values that its output holds, and that it is told of


def normal(device: torch.device, *shape: int, seed: int) -> Tensor:
    """Normal numbers, drawn on the host."""
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return drawn.to(device)


def layernorm(device: torch.device) -> Tensor:
    x, delta = normal(device, 5, 48, seed=1), normal(device, 3, 5, 48, seed=2)
    return triton_ops.layernorm_delta(x, delta, normal(device, 48, seed=3), 1e-5)


def readout(device: torch.device) -> Tensor:
    x, delta = normal(device, 5, 48, seed=1), normal(device, 3, 5, 48, seed=2)
    gain, direction = normal(device, 48, seed=3), normal(device, 5, 48, seed=4)
    return triton_ops.readout_delta(x, delta, gain, 1e-5, direction)


def gelu(device: torch.device) -> Tensor:
    pre, delta = normal(device, 5, 80, seed=1), normal(device, 3, 5, 80, seed=2)
    return triton_ops.gelu_delta(pre, delta, "gelu_new")


def to_tf32(device: torch.device) -> Tensor:
    return triton_ops.to_tf32(normal(device, 5, 80, seed=1))


def mlp_in(device: torch.device) -> Tensor:
    pre, rows = normal(device, 5, 80, seed=1), normal(device, 15, 48, seed=2)
    return triton_ops.mlp_in_delta(pre, rows, normal(device, 48, 80, seed=3))


def head_write(device: torch.device) -> Tensor:
    """One variant holds two heads, one none."""
    rows, heads = (torch.tensor(one).to(device) for one in ([0, 2, 0], [1, 0, 0]))
    z, w_o = normal(device, 5, 2, 48, seed=1), normal(device, 2, 48, 80, seed=2)
    return triton_ops.head_write(normal(device, 3, 5, 80, seed=3), rows, z, heads, w_o)


def attention(T: int, S: int) -> Callable[[torch.device], Tensor]:
    """T queries at the end of S tokens, of which the last three changed."""

    def run(device: torch.device) -> Tensor:
        P, N, C, H, K = 2, 2, 3, 2, 48
        base = [normal(device, N, n, H, K, seed=n) for n in (T, S, S)]
        delta = [normal(device, P, N, n, H, K, seed=n) for n in (T, C, C)]
        at, changed = (torch.arange(S)[-n:].repeat(N, 1).to(device) for n in (T, C))
        return triton_ops.attention_delta(*base, *delta, K**-0.5, at, changed)

    return run


# Rows begin at multiples of 16, as those of every GPT-2 do, and no size fills its tile: what is
# fetched four at a time is fetched so here, and every mask is needed.
KERNELS: dict[str, Callable[[torch.device], Tensor]] = {
    "layernorm_delta_kernel": layernorm,
    "readout_delta_kernel": readout,
    "gelu_delta_kernel": gelu,
    "to_tf32_kernel": to_tf32,
    "mlp_in_delta_kernel": mlp_in,
    "head_write_kernel": head_write,
    "attention_delta_queries": attention(18, 20),
    "attention_delta_last": attention(1, 20),
    "attention_delta_long": attention(3, 70),
}


def all_kernels(device: torch.device) -> None:
    """Each kernel once, also where another fails; raises RuntimeError for those that did."""
    failed = []
    for name, run in KERNELS.items():
        try:
            with guarded() as launched:
                out = run(device).cpu()
            assert launched == [name], f"launched {launched}"
            assert bool(out.isfinite().all()), "not finite"
        except Exception as problem:
            first = (str(problem).splitlines() or [""])[0][:200]
            failed.append(f"{name}: {type(problem).__name__}: {first}")
        else:
            say(kernel=name)
    if failed:
        raise RuntimeError("; ".join(failed))


def memcheck_fault(device: torch.device) -> None:
    """The kernel is told of more values than its output holds, and writes them beside it."""
    if device.type == "cpu" and not TESTS.is_dir():
        return say(left_out="what guards addresses here is part of a checkout")
    pre, delta, out = (normal(device, n, seed=n) for n in (TOLD, TOLD, HELD))
    try:
        with guarded():
            launch(pre, delta, out)
    except Exception as problem:
        if device.type == "cpu" and "OutOfBounds" not in names_of(problem):
            raise
        say(caught=f"{type(problem).__name__}: {problem}"[:300])
    return say(kernel=FAULTY)


def initcheck_fault(device: torch.device) -> None:
    """The kernel reads what nobody has written."""
    pre, delta = normal(device, TOLD, seed=1), torch.empty(TOLD, device=device)
    if device.type == "cpu":
        delta.fill_(torch.nan)
    out = torch.empty(TOLD, device=device)
    launch(pre, delta, out)
    if device.type == "cpu" and bool(out.isnan().all()):
        say(caught="NaN where nobody wrote made every value NaN")
    say(kernel=FAULTY)


def launch(pre: Tensor, delta: Tensor, out: Tensor) -> None:
    """The faulty kernel, told of TOLD values."""
    tile = triton_tiles.GELU
    programs = triton.cdiv(TOLD, tile.constants["BLOCK"])
    kernel = getattr(triton_ops, FAULTY)
    triton_ops.launch_kernel(kernel, programs, tile, pre, delta, out, TOLD, TOLD)
    if out.is_cuda:
        torch.cuda.synchronize(out.device)


MODES = {
    "KERNELS": all_kernels,
    "memcheck-fault": memcheck_fault,
    "initcheck-fault": initcheck_fault,
}


@contextmanager
def guarded() -> Iterator[list[str]]:
    """Names of kernels that are launched; in the interpreter each touches its tensors alone."""
    launch_it, launched = triton_ops.launch_kernel, []
    guard = None
    if os.environ.get("TRITON_INTERPRET") == "1" and TESTS.is_dir():
        sys.path.append(str(TESTS))
        from guarded_memory import guarded as guard

    def watched(kernel, programs, chosen, *arguments, **more) -> None:
        launched.append(kernel.__name__)
        if guard is None:
            return launch_it(kernel, programs, chosen, *arguments, **more)
        named = zip(kernel.arg_names, arguments, strict=False)
        tensors = {name: one for name, one in named if isinstance(one, Tensor)}
        with guard(**tensors):
            return launch_it(kernel, programs, chosen, *arguments, **more)

    triton_ops.launch_kernel = watched
    try:
        yield launched
    finally:
        triton_ops.launch_kernel = launch_it


def names_of(problem: BaseException | None) -> list[str]:
    """Types of an error and of what caused it."""
    found = []
    while problem is not None:
        found.append(type(problem).__name__)
        problem = problem.__cause__ or problem.__context__
    return found


def say(**fact: object) -> None:
    print(json.dumps(fact), flush=True)


def main(arguments: list[str]) -> int:
    """Runs what is named; ends itself after some seconds, whatever it waits for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modes", nargs="+", choices=list(MODES))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=int, default=600)
    asked = parser.parse_args(arguments)
    signal.alarm(asked.seconds)
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    for mode in asked.modes:
        MODES[mode](torch.device("cpu" if interpreted else asked.device))
        say(done=mode)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
