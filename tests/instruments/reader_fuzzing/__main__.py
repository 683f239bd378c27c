"""`PYTHONPATH=tests/instruments .venv/bin/python -m reader_fuzzing --inputs 100000 --seed 1`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from reader_fuzzing.attempts import fuzz
from reader_fuzzing.readers import READERS

# A child reads so many: one that has read more is slower, and a seed is found again sooner.
_AT_ONCE = 5000


def main() -> int:
    """Prints a line a reader, and every problem; returns 1 where there was one."""
    parser = argparse.ArgumentParser(prog="reader_fuzzing", description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="over all readers (100000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--reader", choices=READERS, action="append", help="all of them")
    parser.add_argument("--out", type=Path, default=Path("out/reader_fuzzing"), metavar="DIR")
    arguments = parser.parse_args()
    names = arguments.reader or list(READERS)
    folder = arguments.out / time.strftime("%Y%m%d-%H%M%S")
    problems = 0
    for name in names:
        start, left, read, part = time.perf_counter(), -(-arguments.inputs // len(names)), 0, 0
        total = left
        while left > 0:
            where = folder / f"{name}-{part}"
            seed = arguments.seed * 1_000_000 + part
            tally = fuzz(name, READERS[name], min(left, _AT_ONCE), seed, where.absolute())
            left, read, part = left - _AT_ONCE, read + tally.read, part + 1
            problems += len(tally.problems)
            for line in tally.problems:
                print(line, flush=True)
        seconds = time.perf_counter() - start
        print(f"{name}: {total} inputs, {read} read, {seconds:.0f} s", flush=True)
    print(f"{problems} problems")
    return int(problems > 0)


if __name__ == "__main__":
    sys.exit(main())
