"""docs/kernels.md: what the Triton kernels take of a GPU, and what GPUs allow for the jobs.

`python -P -m ioi_fast.benchmarks.kernel_page` compiles every tile for every target (some minutes)
and writes the page. No GPU is needed.
"""

from __future__ import annotations

import triton

from ioi_fast.benchmarks import kernel_resources, roofline
from ioi_fast.benchmarks.gpu import keep

PAGE = keep.DOCS
_HEAD = """# The Triton kernels on GPUs

Written by `python -P -m ioi_fast.benchmarks.kernel_page`; only what stands under "Measured" was
measured on a GPU.

## What a program takes

Every tile that `kernels/triton_tiles.py` can choose, compiled ahead of time (triton {triton}):
registers a thread / KB of shared memory, and the share of a multiprocessor's warps that those two
leave room for, by data sheets. `ieee` multiplies in fp32 without matrix units; "odd rows" are rows
that do not begin at multiples of 16, as those of every GPT-2 do. None spills registers:
`tests/test_triton_resources.py` holds that, the limit of shared memory, and matrix units where they
are meant. Sizes are VARIANTS, KEYS, WIDTH, QUERIES, SLOTS of attention, QUERIES, KEYS,
SLOTS, DEPTH, WIDTH of that over many keys, VARIANTS, CELLS, COLUMNS, DEPTH of mlp_in_delta, CELLS,
COLUMNS, DEPTH of head_write, and columns of the others.
"""
_BYTES = """
## Bytes

Counted from the kernels' own loads and stores in Triton's interpreter
(`tests/in_interpreter/test_memory_of_kernels.py`), against what must move once:

- attention_delta with GPT-2 small's heads, 16 tokens and 144 variants: at most 1.15 times as many.
  Of a frozen head nothing but its code is read, and its zeros are written.
- mlp_in_delta after its product (the base's hidden rows, and every hidden row that comes out): at
  most 1.15 times as many, since the variants of a tile share what the base has. Its operands follow
  the tiles: rows once for every COLUMNS of the hidden row, the weight once for every VARIANTS x
  CELLS rows.

## What GPUs allow for the jobs

Predicted by `benchmarks/roofline.py` from each job's plan and from data sheets (TFLOP/s without
sparsity, TB/s). With F_clean the FLOPs of both clean runs, which are fp32 in every precision,
F_delta those of all differences, and B their bytes,

    seconds = F_clean / rate(fp32) + max(F_delta / rate(precision), B / bandwidth)
    B = 4 bytes x (rows through an MLP x (4 D + 2 F) + rows recomputed whole x 12 D)

Launches, and what a kernel loses against a data sheet, are not in it: nothing can be faster than
that, and small jobs are far slower.

"""
_MEASURED = f"""
## Measured

By `make gpu`, on each device whose results are in `benchmarks/results/gpu/`.

{keep.BEGIN}
{keep.END}
"""


def page() -> str:
    """The whole page; compiles what was not compiled before."""
    head = _HEAD.format(triton=triton.__version__)
    tables = ["\n".join(lines) + "\n" for lines in (kernel_resources.lines(), roofline.lines())]
    whole = f"{head}\n{tables[0]}{_BYTES}{tables[1]}{_MEASURED}"
    return keep.into(whole, keep.docs_block(keep.kept()))


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"written: {PAGE}")
