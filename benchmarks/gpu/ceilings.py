"""What the device is and what it reaches at most: copies, matrix products, launches."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ioi_fast.benchmarks.gpu.clock import Clock
from ioi_fast.benchmarks.gpu.setting import Setting
from ioi_fast.benchmarks.gpu.units import Allowance, Row, Unit, shown
from ioi_fast.benchmarks.roofline import Device
from ioi_fast.kernels.fp32_products import fp32_products, tf32_products

REPEATS = 20
COPY = 2**30  # bytes
PINNED = 2**28
LAUNCHES = 500
# Rows of a wave by the first product of an MLP (the shape of the CPU's rate), and a square one
# that fills any GPU.
SHAPES = {"J1": (2304, 768, 3072), "8192³": (8192, 8192, 8192)}
SMALL = (24, 16, 32)
Product = Callable[[Tensor, Tensor], Tensor]


def units(setting: Setting) -> Iterator[Unit]:
    """The device itself, then its ceilings; none needs Triton."""

    def unit(name: str, run: Callable[[Allowance], Row], weight: float = 1.0) -> Unit:
        return Unit(name, run, weight, kernels=False)

    clock = Clock(setting.device)
    yield unit("machine", lambda _: setting.machine)
    yield unit("copy", lambda _: copied(clock))
    yield unit("pinned copies", lambda _: pinned(clock))
    yield unit("launch", lambda _: launched(clock))
    for where, shape in SHAPES.items():
        for kind in PRODUCTS:
            name, size = f"product {kind} {where}", SMALL if setting.dry else shape
            yield unit(name, product_of(clock, kind, size), 1.0 + (where != "J1"))


def copied(clock: Clock) -> Row:
    """A copy on the device: bytes read and written."""
    size = COPY if clock.on_gpu else 2**16
    source = torch.randint(256, (size,), dtype=torch.uint8, device=clock.device)
    into = torch.empty_like(source)
    into.copy_(source)
    found = clock.seconds(lambda: into.copy_(source), REPEATS)
    assert torch.equal(into, source), "a copy differs from its source"
    return rate("bytes_a_second", 2 * size, found)


def pinned(clock: Clock) -> Row:
    """Copies between the host and the device, from memory that the host does not move."""
    if not clock.on_gpu:
        return {"seconds": [], "bytes": 0}
    host = torch.randint(256, (PINNED,), dtype=torch.uint8).pin_memory()
    device = torch.empty(PINNED, dtype=torch.uint8, device=clock.device)
    there = clock.seconds(lambda: device.copy_(host, non_blocking=True), 10)
    back = clock.seconds(lambda: host.copy_(device, non_blocking=True), 10)
    return {
        **rate("bytes_a_second", PINNED, there),
        "bytes_a_second_back": PINNED / statistics.median(back),
    }


def launched(clock: Clock) -> Row:
    """What a launch takes of the host's time, and of the device's where nothing is to do."""
    if not clock.on_gpu:
        return {"seconds": []}
    one = torch.zeros(1, device=clock.device)

    def many() -> None:
        for _ in range(LAUNCHES):
            one.add_(1)

    many()
    clock.wait()
    begun = time.perf_counter()
    many()  # fewer than a device holds in line, so that the host waits for nothing
    host = time.perf_counter() - begun
    clock.wait()
    device = clock.seconds(many, 5)
    return {
        "host_seconds_a_launch": host / LAUNCHES,
        "seconds_a_launch": statistics.median(device) / LAUNCHES,
        "seconds": device,
    }


def product_of(clock: Clock, kind: str, shape: tuple[int, int, int]) -> Callable:
    """A unit that multiplies random rows by a random weight, and says how far off that is."""

    def run(allowance: Allowance) -> Row:
        rows, depth, columns = shape
        generator = torch.Generator().manual_seed(0)
        left, right = (
            torch.randn(shape, generator=generator).to(clock.device)
            for shape in ((rows, depth), (depth, columns))
        )
        product = PRODUCTS[kind](clock, right)
        some = slice(0, 64)
        truth = left[some].double() @ right.double()
        error = float((product(left)[some].double() - truth).norm() / truth.norm())
        first = clock.seconds(lambda: product(left), 3)
        repeats = allowance.repeats(first[1] if first else 0.0, REPEATS)
        found = clock.seconds(lambda: product(left), repeats)
        flops = 2 * rows * depth * columns
        return {"shape": list(shape), "error": error, **rate("flops_a_second", flops, found)}

    return run


def rate(name: str, amount: float, seconds: list[float]) -> Row:
    """An amount over the median of seconds; no rate where there is no time."""
    found = {"seconds": seconds, "amount": amount}
    return {**found, name: amount / statistics.median(seconds)} if seconds else found


def _library(product: Product) -> Callable[[Clock, Tensor], Callable[[Tensor], Tensor]]:
    return lambda clock, right: lambda left: product(left, right)


def _bf16(clock: Clock, right: Tensor) -> Callable[[Tensor], Tensor]:
    half = right.bfloat16()
    return lambda left: in_fp32_sums(left.bfloat16(), half)


def in_fp32_sums(left: Tensor, right: Tensor) -> Tensor:
    """bf16 operands with fp32 sums, as the engine multiplies."""
    if left.device.type == "cpu":
        return left.float() @ right.float()
    return torch.mm(left, right, out_dtype=torch.float32)


def _compensated(parts: Callable[[Tensor], tuple[Tensor, Tensor]], product: Product) -> Callable:
    """Three products of operands in two parts each: all but that of both remainders."""

    def made(clock: Clock, right: Tensor) -> Callable[[Tensor], Tensor]:
        high, low = parts(right)

        def run(left: Tensor) -> Tensor:
            above, below = parts(left)
            out = product(above, low).add_(product(below, high))
            return out.add_(product(above, high))

        return run

    return made


def bf16_parts(x: Tensor) -> tuple[Tensor, Tensor]:
    """x rounded to bf16, and what that leaves, in bf16 too."""
    high = x.bfloat16()
    return high, (x - high.float()).bfloat16()


def tf32_parts(x: Tensor) -> tuple[Tensor, Tensor]:
    """x cut to TF32's 10 bits after the point, and what that leaves."""
    high = x.view(torch.int32).bitwise_and(-(1 << 13)).view(torch.float32)
    return high, x - high


def _fp32(left: Tensor, right: Tensor) -> Tensor:
    with fp32_products():
        return left @ right


def _tf32(left: Tensor, right: Tensor) -> Tensor:
    with fp32_products(), tf32_products():
        return left @ right


PRODUCTS: dict[str, Callable[[Clock, Tensor], Callable[[Tensor], Tensor]]] = {
    "fp32": _library(_fp32),
    "tf32": _library(_tf32),
    "bf16": _bf16,
    "tf32x3": _compensated(tf32_parts, _tf32),
    "bf16x3": _compensated(bf16_parts, in_fp32_sums),
}


def device_of(rows: list[Row]) -> Device | None:
    """The ceilings of a run, as a device for predictions; None if some are missing."""
    by_name = {row["unit"]: row for row in rows}
    products = {kind: by_name.get(f"product {kind} 8192³", {}) for kind in ("fp32", "tf32", "bf16")}
    bandwidth = by_name.get("copy", {}).get("bytes_a_second")
    rates = {kind: row.get("flops_a_second") for kind, row in products.items()}
    if bandwidth is None or None in rates.values():
        return None
    name = by_name.get("machine", {}).get("device", "this device")
    tera = {kind: rate / 1e12 for kind, rate in rates.items()}
    return Device(f"{name}, measured", tera, bandwidth / 1e12)


def line(row: Row) -> str:
    """A ceiling in one line."""
    if row["unit"] == "machine":
        versions = ", ".join(f"{name} {row[name]}" for name in ("torch", "triton", "numpy"))
        return f"{row['device']}, driver {row.get('driver')}, {versions}, {row['host_cpu']}"
    if "host_seconds_a_launch" in row:
        host, device = (1e6 * row[f"{name}seconds_a_launch"] for name in ("host_", ""))
        return f"{host:.1f} µs of the host, {device:.1f} µs one after another"
    error = f"error {shown(row['error'])}, " if "error" in row else ""
    for name, unit in (("bytes_a_second", "GB/s"), ("flops_a_second", "TFLOP/s")):
        if name in row:
            scale = 1e9 if unit == "GB/s" else 1e12
            back = row.get("bytes_a_second_back")
            more = f", back {back / 1e9:.0f}" if back else ""
            return f"{error}{row[name] / scale:.1f} {unit}{more}"
    return f"{error}dry: not timed"
