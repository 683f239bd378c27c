"""From differences of the final residual to differences of the metric.

A logit difference needs one direction a prompt; only other metrics meet the whole vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ioi_fast.asked.metrics import METRICS, Metric, OfGap, Reading
from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.engine.clean_run import layernorm, tiles
from ioi_fast.engine.engine import Engine
from ioi_fast.engine.placement import here
from ioi_fast.plan.memory.clean_runs import READING_ROWS, VOCABULARY_ROWS

Change = Callable[[Tensor], Tensor]


def read_out(
    engine: Engine,
    pairs: PromptPairs,
    index: Tensor,
    metric: Metric,
    final_ND: Tensor,
) -> tuple[Tensor, Change]:
    """The base metric [N], and a function delta [P, N, D] -> change of the metric [P, N].

    `index` [N] is where the pairs stand among the caller's, for metrics that are callables.
    """
    reads = METRICS[metric].reads if isinstance(metric, str) else None
    if isinstance(reads, OfGap):
        return _columns(engine, pairs, reads, final_ND)
    reading = _reading(engine, pairs, here(index), metric, final_ND)
    return reading.base(READING_ROWS).float(), _vocabulary(engine, reading, final_ND)


def _columns(
    engine: Engine, pairs: PromptPairs, reads: OfGap, final_ND: Tensor
) -> tuple[Tensor, Change]:
    weights, epsilon = engine.weights, engine.config.layer_norm_epsilon
    direction_ND = weights.unembed[pairs.answers] - weights.unembed[pairs.wrong_answers]
    base_N = (_final_layernorm(engine, final_ND) * direction_ND).sum(-1)

    def change(delta_PND: Tensor) -> Tensor:
        final = (final_ND, delta_PND, weights.ln_f_gain, epsilon, direction_ND)
        delta_PN = engine.ops.readout_delta(*final)
        return reads.change(base_N, delta_PN)

    return reads.value(base_N), change


def _reading(
    engine: Engine,
    pairs: PromptPairs,
    index: Tensor,
    metric: Metric,
    final_ND: Tensor,
) -> Reading:
    logits_NV = engine.packed.unembed.delta(_final_layernorm(engine, final_ND))
    return Reading(metric, pairs.answers, pairs.wrong_answers, logits_NV, index)


def _vocabulary(engine: Engine, reading: Reading, final_ND: Tensor) -> Change:
    weights, epsilon = engine.weights, engine.config.layer_norm_epsilon

    def change(delta_PND: Tensor) -> Tensor:
        P, N, _ = delta_PND.shape
        out = torch.empty(P * N, dtype=torch.float32)
        prompt_R = torch.arange(N).repeat(P)
        for start in range(0, P * N, VOCABULARY_ROWS):
            rows = slice(start, start + VOCABULARY_ROWS)
            delta_RD = delta_PND.view(P * N, -1)[rows]
            normed_RD = engine.ops.layernorm_delta(
                final_ND[prompt_R[rows]], delta_RD, weights.ln_f_gain, epsilon
            )
            logits_RV = engine.packed.unembed.delta(normed_RD)
            for some in tiles(len(logits_RV), READING_ROWS):
                change_R = reading.change(logits_RV[some], prompt_R[rows][some])
                out[rows][some] = change_R.float()
        return out.view(P, N)

    return change


def _final_layernorm(engine: Engine, final_ND: Tensor) -> Tensor:
    weights, epsilon = engine.weights, engine.config.layer_norm_epsilon
    return layernorm(final_ND, weights.ln_f_gain, weights.ln_f_bias, epsilon)
