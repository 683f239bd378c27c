"""What a call of a kernel can't do without: bytes of memory, and FLOPs of its matrix products.

Each input is read once and each output written once; what the base lends to all variants once, and
what a table leaves out never. A product [m, k] @ [k, n] is 2·m·n·k FLOPs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch

from ioi_fast.benchmarks.gpu.kernels.shapes import Call, Shape
from ioi_fast.kernels.reference import LIVE


@dataclass(frozen=True, slots=True)
class Cost:
    """Bytes and FLOPs of one call."""

    bytes: int
    flops: int = 0

    def seconds(self, bandwidth: float, rate: float) -> float:
        """The longer of both at these ceilings, in bytes and FLOPs a second."""
        return max(self.bytes / bandwidth, self.flops / rate)


def cost(call: Call) -> Cost:
    """Of one call of any operation."""
    return _COSTS[call.operation](dict(call.arguments))


def work(call: Call) -> int:
    """What calls are weighed by."""
    return cost(call).bytes


def _layernorm(given: Mapping[str, Shape]) -> Cost:
    return Cost(given["x_RD"].bytes + 2 * given["delta_RD"].bytes + given["gain_D"].bytes)


def _readout(given: Mapping[str, Shape]) -> Cost:
    read = sum(given[name].bytes for name in ("x_RD", "delta_RD", "gain_D", "direction_RD"))
    return Cost(read + 4 * prod(given["delta_RD"].sizes[:-1]))


def _gelu(given: Mapping[str, Shape]) -> Cost:
    return Cost(given["pre_RF"].bytes + 2 * given["delta_RF"].bytes)


def _mlp_in(given: Mapping[str, Shape]) -> Cost:
    (R, D), (N, F) = given["rows_RD"].sizes, given["pre_RF"].sizes
    index = given.get("index_R")
    base = N if index is None else different(index)
    moved = given["rows_RD"].bytes + given["weight_DF"].bytes + 4 * F * (base + R)
    return Cost(moved + (0 if index is None else index.bytes), 2 * R * D * F)


def _head_write(given: Mapping[str, Shape]) -> Cost:
    (_, C, D), (_, K, _) = given["delta_PCD"].sizes, given["w_o_HKD"].sizes
    rows, heads = given["rows"], given["heads"]
    writes, held, variants = len(rows.values), different(heads), different(rows)
    floats = 2 * variants * C * D + held * (C * K + K * D)
    return Cost(4 * floats + rows.bytes + heads.bytes, 2 * writes * C * K * D)


def _attention(given: Mapping[str, Shape]) -> Cost:
    """Rows of the base once; of variants those that a table says to compute, or to take."""
    (N, T, H, K), S = given["q_NTHK"].sizes, given["k_NSHK"].sizes[1]
    C, P = given["delta_k"].sizes[-3], prod(given["delta_q"].sizes[:-4])
    live, alive, taken = _rows(given.get("table"), P, N, T, H)
    floats = K * (N * T * H + 2 * N * S * H)  # q, k and v
    floats += K * (live + 2 * C * alive + taken + P * N * T * H)  # their changes, sources, z
    places = [given.get(name) for name in ("at_NT", "changed_NC", "table")]
    private = 2 * C * K * 2
    flops = N * T * H * 2 * S * K + live * (2 * S * K * 2 + private)
    return Cost(4 * floats + sum(one.bytes for one in places if one is not None), flops)


def _rows(table: Shape | None, P: int, N: int, T: int, H: int) -> tuple[int, int, int]:
    """Rows of z that are computed, heads of variants that have one, and rows from a source."""
    if table is None:
        return P * N * T * H, P * N * H, 0
    codes = table.values.reshape(-1, *table.sizes[-3:]).expand(P, N, T, H)
    computed = codes == LIVE
    return int(computed.sum()), int(computed.any(2).sum()), int((codes >= 0).sum())


def different(numbers: Shape) -> int:
    """How many different numbers a tensor of whole numbers holds."""
    return len(torch.unique(numbers.values))


_COSTS = {
    "layernorm_delta": _layernorm,
    "readout_delta": _readout,
    "gelu_delta": _gelu,
    "head_write": _head_write,
    "mlp_in_delta": _mlp_in,
    "attention_delta": _attention,
}
