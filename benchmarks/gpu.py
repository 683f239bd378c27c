"""The jobs J1 to J6 on a GPU: right first, then timed by the device's clock, predictions beside.

`ioi-fast bench --backend triton` starts it. A dry run goes through all of it in Triton's
interpreter, on a small model and without a clock: it shows that the program works, and no speed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ioi_fast import (
    GPT2,
    Circuit,
    GPT2Config,
    PromptPairs,
    Result,
    ablate,
    explain,
    pair_sweep,
    path_patch,
)
from ioi_fast.agreement import PROMISED, sweep_error
from ioi_fast.benchmarks.bench_path_patching import JOBS
from ioi_fast.benchmarks.jobs import CIRCUIT, knock_out_sets, prompts
from ioi_fast.benchmarks.measure import checked_error
from ioi_fast.benchmarks.roofline import DEVICES, Work
from ioi_fast.ops import why_not_triton
from ioi_fast.revision import revision

ROUNDS = 5
PRECISIONS = ("fp32", "tf32", "bf16")


@dataclass(frozen=True, slots=True)
class Job:
    """What is timed, the work that it needs, and its error against the reference in float64."""

    name: str
    run: Callable[[], object]
    work: Work
    error: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Bench:
    """A model on the device and on the host, and the sizes of its jobs."""

    host: GPT2
    model: GPT2
    dry: bool

    @classmethod
    def of(cls, dry: bool) -> Bench:
        """GPT-2 small's shapes on the GPU, or a small model in the interpreter."""
        if dry:
            shape = {"n_layer": 3, "n_head": 2, "n_embd": 64, "n_positions": 16}
            host = GPT2.random(GPT2Config(**shape, vocab_size=61), seed=0)
            return cls(host, host, dry)
        host = GPT2.random(GPT2Config(), seed=0)
        return cls(host, host.to(device="cuda"), dry)

    def jobs(self, precision: str) -> Iterator[Job]:
        """All of them; the forward pass, which has no differences, in fp32 alone."""
        how = {"backend": "triton", "precision": precision}
        for name, (receivers, position, _, N, _) in JOBS.items():
            if not (self.dry and N > 16):
                yield self._path_patch(name, receivers, position, N, how)
        yield self._sets(how)
        yield self._pairs(how)
        if precision == "fp32":
            yield self._forward()

    def _prompts(self, N: int) -> PromptPairs:
        # The jobs' roles need 11 tokens.
        N, T = (2, 12) if self.dry else (N, 16)
        return prompts(N, T, self.host.config.vocab_size)

    def _path_patch(
        self, name: str, receivers: str | list[str], position: str, N: int, how: dict
    ) -> Job:
        pairs, asked = self._prompts(N), {"receivers": receivers, "position": position}
        if self.dry and receivers != "logits":
            asked["receivers"] = [f"2.1.{receivers[0][-1]}"]
        plan = explain(path_patch, self.host, pairs, **asked)

        def run() -> Result:
            return path_patch(self.model, pairs, **asked, **how)

        def error() -> float:
            result = run()
            senders = [str(sender) for sender in result.senders]
            return checked_error(path_patch, self.host, pairs, result, senders, **asked)

        return Job(name, run, Work.of(plan, self.host.config), error)

    def _sets(self, how: dict) -> Job:
        pairs, circuit, sets = self._prompts(16), Circuit(CIRCUIT), knock_out_sets(2000)
        if self.dry:
            circuit = Circuit({"0.1": "S2", "1.0": "END", "2.1": "END"})
            sets = [{"0.1": "S2"}, {"1.0": "END"}, {"2.1": "END"}, {"0.1": "S2", "2.1": "END"}]
        plan = explain(ablate, self.host, pairs, variants=sets, base=circuit)

        def run() -> Result:
            return ablate(self.model, pairs, sets, base=circuit, **how)

        def error() -> float:
            return checked_error(ablate, self.host, pairs, run(), sets, base=circuit)

        return Job("J4", run, Work.of(plan, self.host.config), error)

    def _pairs(self, how: dict) -> Job:
        pairs = self._prompts(8)
        plan = explain(pair_sweep, self.host, pairs)

        def run() -> object:
            return pair_sweep(self.model, pairs, per_prompt=True, **how)

        def error() -> float:
            """Of the last layer's first head, for each input and every sender of layer 0."""
            values, last = run().values, self.host.config.n_layer - 1
            senders = [f"0.{head}" for head in range(self.host.config.n_head)]
            exact = {"backend": "reference", "precision": "fp64", "between": "nothing"}
            errors = []
            for index, site in enumerate("qkv"):
                truth = path_patch(self.host, pairs, senders, [f"{last}.0.{site}"], None, **exact)
                errors.append(sweep_error(values[index, 0, :, last, 0], truth.values))
            return max(errors)

        return Job("J5", run, Work.of(plan, self.host.config), error)

    def _forward(self) -> Job:
        tokens, config = self._prompts(16).orig, self.host.config
        flops = 2 * tokens.numel() * (12 * config.n_layer * config.n_embd**2)
        flops += 2 * tokens.numel() * config.n_embd * config.vocab_size
        logits = 4 * tokens.numel() * config.vocab_size

        def error() -> float:
            truth = self.host.to(dtype=torch.float64)(tokens)
            got: Tensor = self.model(tokens).cpu().double()
            return float((got - truth).abs().max() / truth.abs().max())

        return Job("J6", lambda: self.model(tokens), Work(flops, 0, logits), error)

    def seconds(self, run: Callable[[], object]) -> list[float]:
        """Of each round, by events on the device; none in a dry run."""
        run()
        if self.dry:
            return []
        found = []
        for _ in range(ROUNDS):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            begin.record()
            run()
            end.record()
            torch.cuda.synchronize()
            found.append(begin.elapsed_time(end) / 1e3)
        return sorted(found)


def measured(bench: Bench, job: Job, precision: str) -> dict[str, object]:
    """What is written of a job; raises AssertionError for a wrong answer, which has no speed."""
    error = job.error()
    assert error <= PROMISED[precision], f"{job.name} in {precision}: error {error:.1e}"
    seconds = bench.seconds(job.run)
    found = {"job": job.name, "precision": precision, "error": error, "seconds": seconds}
    name = "no GPU" if bench.dry else torch.cuda.get_device_name()
    roofs = {device.name.split()[0]: job.work.seconds(device, precision) for device in DEVICES}
    found["predicted"] = {short: least for short, least in roofs.items() if short in name} or roofs
    if seconds:
        median = statistics.median(seconds)
        found["tflops"] = (job.work.clean + job.work.differences) / median / 1e12
        found["gbytes_a_second"] = job.work.bytes / median / 1e9
    return found


def line(found: dict) -> str:
    """A job in one line; what was predicted is called that."""
    predicted = ", ".join(f"{name} {1e3 * s:.2g}" for name, s in found["predicted"].items())
    text = f"{found['job']:<12} {found['precision']:<5} error {found['error']:.0e}  "
    if found["seconds"]:
        text += f"{1e3 * statistics.median(found['seconds']):.2f} ms, "
        text += f"{found['tflops']:.1f} TFLOP/s, {found['gbytes_a_second']:.0f} GB/s, "
    else:
        text += "dry: not timed, "
    return text + f"predicted ms, nothing can be faster: {predicted}"


def main(arguments: list[str] | None = None) -> int:
    """Runs all jobs, prints a line each and writes them; raises RuntimeError without a GPU."""
    parser = argparse.ArgumentParser(prog="ioi_fast.benchmarks.gpu")
    parser.add_argument("--dry", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks/gpu.json"))
    given = parser.parse_args(arguments)
    reason = why_not_triton(torch.device("cpu" if given.dry else "cuda"))
    if reason is not None or (not given.dry and not torch.cuda.is_available()):
        raise RuntimeError(f"no GPU to measure: {reason or 'torch sees none'}; --dry needs none")
    bench, jobs = Bench.of(given.dry), []
    for precision in PRECISIONS:
        for job in bench.jobs(precision):
            jobs.append(measured(bench, job, precision))
            print(line(jobs[-1]), flush=True)
    name = "Triton's interpreter" if given.dry else torch.cuda.get_device_name()
    graphs = os.environ.get("IOI_FAST_CUDA_GRAPHS") == "1"
    machine = {
        "device": name,
        "dry": given.dry,
        "graphs": graphs,
        "torch": torch.__version__,
        "commit": revision(),
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps({"machine": machine, "jobs": jobs}, indent=1) + "\n")
    print(f"results written: {given.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
