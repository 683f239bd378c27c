"""One plain forward pass with all logits (J6) against transformers."""

from __future__ import annotations

from ioi_fast.benchmarks.jobs import gpt2_small, prompts
from ioi_fast.benchmarks.measure import Peer, run_job, timed
from ioi_fast.benchmarks.peers import passes
from ioi_fast.benchmarks.transformers_model import as_transformers
from ioi_fast.plan.flops import run_flops
from ioi_fast.results.promised_accuracy import PROMISED


def bench_forward(benchmark) -> None:
    model, pairs = gpt2_small(), prompts(16, 16)
    truth = as_transformers(model).double()(pairs.orig).logits
    error = float((model(pairs.orig) - truth).abs().max() / truth.abs().max())
    assert error <= PROMISED["fp32"]
    config, rows = model.config, pairs.orig.numel()
    flops = config.n_layer * run_flops(config, False, rows, 0)
    run_job(
        benchmark,
        "J6: one forward pass with all logits, N=16, T=16",
        lambda: model(pairs.orig),
        [Peer("transformers", timed(passes(model, pairs, 1)), 1.5)],
        units=1,
        unit="pass",
        rounds=15,
        flops=flops + 2 * rows * config.n_embd * config.vocab_size,
        facts={"backend": "cpu/c++", "precision": "fp32", "error": error},
    )
