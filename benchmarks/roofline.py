"""What GPUs allow for the benchmark jobs: predictions from plans and data sheets, nothing measured.

Of a job the plan knows the FLOPs of both clean runs, those of all differences, and their rows.
A time is that of the clean runs at the rate of fp32, and for the differences the longer of their
FLOPs at the rate of the precision and of their bytes at the memory's bandwidth. Launches, and what
a kernel loses against the data sheet, are not in it: nothing can be faster, much may be slower.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ioi_fast import Circuit, ablate, explain, pair_sweep, path_patch
from ioi_fast.benchmarks.jobs import CIRCUIT, PATH_JOBS, gpt2_small, knock_out_sets, prompts
from ioi_fast.calls.explain import Plan
from ioi_fast.model.config import GPT2Config
from ioi_fast.plan.reruns import RerunPlan

FLOAT = 4


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU's data sheet: TFLOP/s without sparsity by precision, and TB/s of its memory."""

    name: str
    rates: dict[str, float]
    bandwidth: float


DEVICES = (
    Device("A100 80 GB SXM", {"fp32": 19.5, "tf32": 156, "bf16": 312}, 2.039),
    Device("H100 SXM", {"fp32": 66.9, "tf32": 494.7, "bf16": 989.4}, 3.35),
    Device("H200 SXM", {"fp32": 66.9, "tf32": 494.7, "bf16": 989.4}, 4.8),
)


@dataclass(frozen=True, slots=True)
class Work:
    """FLOPs of the clean runs and of differences, and bytes that differences move."""

    clean: int
    differences: int
    bytes: int

    @classmethod
    def of(cls, plan: Plan, config: GPT2Config) -> Work:
        """From a plan, in which a row is a token of a prompt of a variant in a layer.

        Through an MLP a row is read, normalised, written as its hidden row and read again, and
        added to: 4·D + 2·F floats. What is recomputed whole goes through LayerNorm, the three
        inputs of attention, z and its product before that: 12·D more.
        """
        D, F = config.n_embd, config.d_mlp
        if isinstance(plan, RerunPlan):
            waves, reruns = 0, sum(plan.rows)
        else:
            layers = plan.layers()
            waves = sum(layer.wave_rows for layer in layers)
            reruns = sum(layer.after_rows for layer in layers)
        floats = (waves + reruns) * (4 * D + 2 * F) + reruns * 12 * D
        return cls(plan.clean_flops, plan.flops - plan.clean_flops, FLOAT * floats)

    def seconds(self, device: Device, precision: str) -> float:
        """The least time that a device allows."""
        tera = 1e12
        differences = max(
            self.differences / (device.rates[precision] * tera),
            self.bytes / (device.bandwidth * tera),
        )
        return self.clean / (device.rates["fp32"] * tera) + differences


def jobs() -> Iterator[tuple[str, Work]]:
    """The jobs J1 to J5 by name."""
    model = gpt2_small()
    for name, (receivers, position, _, N, _) in PATH_JOBS.items():
        asked = {"receivers": receivers, "position": position}
        yield name, Work.of(explain(path_patch, model, prompts(N, 16), **asked), model.config)
    sets = {"variants": knock_out_sets(2000), "base": Circuit(CIRCUIT)}
    yield "J4", Work.of(explain(ablate, model, prompts(16, 16), **sets), model.config)
    yield "J5", Work.of(explain(pair_sweep, model, prompts(8, 16)), model.config)


def lines() -> list[str]:
    """The table of all jobs, devices and precisions; every line says that it is predicted."""
    found = [
        f"| | job, precision | GFLOP, clean + differences | GB | "
        f"{' | '.join(device.name for device in DEVICES)} |",
        f"|---|---|---|---|{'---|' * len(DEVICES)}",
    ]
    for name, work in jobs():
        for precision in ("fp32", "tf32", "bf16"):
            times = [f"{1e3 * work.seconds(device, precision):.2f} ms" for device in DEVICES]
            flops = f"{work.clean / 1e9:,.0f} + {work.differences / 1e9:,.0f}"
            found.append(
                f"| predicted | {name}, {precision} | {flops} | {work.bytes / 1e9:.1f} | "
                f"{' | '.join(times)} |"
            )
    return found
