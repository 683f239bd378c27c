"""Which tile each Triton kernel takes, by shape: data, with no timing at import or first use.

Every row here is compiled ahead of time for every target by the tests; a shape that no row covers
runs on torch's own operations. A GPU that has timed them may take others (tuned_tiles.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# What a thread may have on NVIDIA's GPUs. Unless it is said, their assembler may spill some to make
# room for more programs.
MOST_REGISTERS = 255


@dataclass(frozen=True, slots=True)
class Launch:
    """Constants of a kernel, the warps of a program, and how many turns of a loop are in flight."""

    sizes: tuple[tuple[str, int], ...]
    warps: int
    stages: int = 3

    @property
    def constants(self) -> dict[str, int]:
        return dict(self.sizes)


def _launch(warps: int, stages: int = 3, **sizes: int) -> Launch:
    return Launch(tuple(sizes.items()), warps, stages)


# Columns that one program holds of a row: LayerNorm and the read-out.
ROWS = tuple(
    _launch(warps, BLOCK=block) for block, warps in ((64, 1), (256, 2), (1024, 4), (2048, 8))
)
GELU = _launch(4, BLOCK=1024)
# Variants and cells, which are rows, by columns of a product, and the depth that is fetched at a
# time. Variants of a tile share what the base has at their cells.
MLP_IN_FEW = tuple(
    _launch(4, VARIANTS=16 // cells, CELLS=cells, COLUMNS=64, DEPTH=32) for cells in (1, 4, 16)
)
MLP_IN = tuple(
    _launch(8, VARIANTS=64 // cells, CELLS=cells, COLUMNS=64, DEPTH=16) for cells in (1, 4, 16, 64)
)
HEAD_WRITE = {
    width: _launch(8, CELLS=16, COLUMNS=columns, DEPTH=width)
    for width, columns in ((16, 64), (64, 64), (128, 16))
}
# Keys of a prompt by the size of a head. Queries and changed keys go by blocks of 16; variants of a
# program follow each other and share what the base lends, or, with one query each, are the rows of
# a product.
KEYS_AND_WIDTHS = ((32, 16), (16, 64), (32, 64), (64, 64))
BLOCK = 16
# Variants and warps where each has one query: few keys leave room for more, who read them once.
ONE_QUERY = {(32, 16): (64, 8), (16, 64): (64, 8), (32, 64): (32, 8), (64, 64): (16, 4)}
# More keys than those, or wider heads: keys go by blocks, and so do the columns of
# heads, for scores by DEPTH and for z by WIDTH; one variant a program.
LONG = tuple(
    _launch(8, stages=1, QUERIES=BLOCK, KEYS=64, SLOTS=BLOCK, DEPTH=16, WIDTH=width)
    for width in (16, 64)
)


def row_launch(D: int) -> Launch | None:
    """A row of D columns; None if it is wider than any."""
    return next((one for one in ROWS if one.constants["BLOCK"] >= D), None)


def product_launch(variants: int, cells: int) -> Launch:
    """The first product of an MLP: the tile that computes the fewest rows in vain."""

    def computed(launch: Launch) -> int:
        sizes = launch.constants
        tall, wide = sizes["VARIANTS"], sizes["CELLS"]
        return -(-variants // tall) * tall * -(-cells // wide) * wide

    return min(MLP_IN_FEW if variants * cells <= 32 else MLP_IN, key=computed)


def write_launch(K: int) -> Launch | None:
    """What a head of size K writes."""
    return next((one for width, one in HEAD_WRITE.items() if width >= K), None)


def attention_launch(T: int, S: int, K: int) -> Launch:
    """T queries against S keys, for heads of size K."""
    for keys, width in KEYS_AND_WIDTHS:
        if keys >= S and width >= K:
            return attention_of(keys, width, one_query=T == 1)
    narrow, wide = LONG
    return narrow if narrow.constants["WIDTH"] >= K else wide


def attention_of(keys: int, width: int, one_query: bool) -> Launch:
    """The launch for a tile of attention; one query is a kernel of its own."""
    if one_query:
        variants, warps = ONE_QUERY[keys, width]
        return _launch(warps, stages=1, VARIANTS=variants, KEYS=keys, WIDTH=width)
    sizes = {"VARIANTS": BLOCK, "KEYS": keys, "WIDTH": width}
    # What the base lends fills the registers: with a second variant in flight they would spill.
    return _launch(8, stages=1, **sizes, QUERIES=BLOCK, SLOTS=BLOCK)


def covering(operation: str, key: Mapping[str, int]) -> tuple[Launch, ...]:
    """Every tile that does any shape of a key (tuned_tiles.KEYS), the fewest columns first."""
    if operation in ("layernorm_delta", "readout_delta"):
        return tuple(one for one in ROWS if one.constants["BLOCK"] >= key["columns"])
    if operation == "mlp_in_delta":
        return (*MLP_IN_FEW, *MLP_IN)
    if operation == "head_write":
        return tuple(one for width, one in HEAD_WRITE.items() if width >= key["depth"])
    if operation == "attention_delta":
        held = (
            attention_of(keys, width, one_query=bool(key["one_query"]))
            for keys, width in KEYS_AND_WIDTHS
            if keys >= key["keys"] and width >= key["width"]
        )
        return (*held, *LONG)
    raise ValueError(f"{operation!r} has no tiles to choose from")
