"""Predictions for GPUs follow from plans by the formula that the docs state."""

from __future__ import annotations

import pytest
from small_models import ragged_pairs, tiny_model

from ioi_fast import ablate, explain, pair_sweep, path_patch
from ioi_fast.benchmarks.roofline import DEVICES, Device, Work


def test_a_time_is_the_longer_of_flops_and_bytes() -> None:
    device = Device("of round figures", {"fp32": 1, "tf32": 2, "bf16": 4}, 0.5)
    slow_memory = Work(clean=10**12, differences=8 * 10**12, bytes=3 * 10**12)
    assert slow_memory.seconds(device, "fp32") == 1 + 8
    assert slow_memory.seconds(device, "bf16") == 1 + 6, "3 TB at 0.5 TB/s"


@pytest.mark.parametrize("call", ["waves", "receivers", "ablations", "pairs"])
def test_work_is_that_of_the_plan(call: str) -> None:
    model, pairs = tiny_model(), ragged_pairs()
    plan = {
        "waves": lambda: explain(path_patch, model, pairs),
        "receivers": lambda: explain(path_patch, model, pairs, receivers=["2.1.q"]),
        "ablations": lambda: explain(ablate, model, pairs, variants=[{"0.1": "all"}]),
        "pairs": lambda: explain(pair_sweep, model, pairs),
    }[call]()
    work = Work.of(plan, model.config)
    assert work.clean + work.differences == plan.flops and work.clean == plan.clean_flops
    if call == "waves":
        rows = sum(layer.wave_rows for layer in plan.layers())
        assert work.bytes == 4 * rows * (4 * model.config.n_embd + 2 * model.config.d_mlp)
    assert 0 < work.seconds(DEVICES[0], "bf16") <= work.seconds(DEVICES[0], "fp32")
