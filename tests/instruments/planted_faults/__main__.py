"""Plants each drawn fault in a copy of this checkout and says which test sees it.

`PYTHONPATH=tests/instruments .venv/bin/python -m planted_faults --draw 7` draws others.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

from planted_faults.copies import Copy
from planted_faults.drawing import Fault, draw

DRAWN = Path(__file__).with_name("drawn.json")


def main() -> int:
    """Prints a line a fault; returns 1 where one is not seen."""
    parser = argparse.ArgumentParser(prog="planted_faults", description=__doc__)
    parser.add_argument("--draw", type=int, metavar="SEED", help="draw faults anew, and keep them")
    parser.add_argument("--share", type=float, default=1.0, help="of how many are drawn (1.0)")
    parser.add_argument("--only", type=int, nargs="*", metavar="N", help="some of the list")
    parser.add_argument("--timeout", type=int, default=1500, help="seconds of a run of the tests")
    arguments = parser.parse_args()
    faults = [Fault(**one) for one in json.loads(DRAWN.read_text())] if DRAWN.exists() else []
    if arguments.draw is not None:
        faults = draw(arguments.draw, arguments.share)
    unseen = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Copy(Path(folder))
        for number, fault in enumerate(faults):
            if fault.seen_by.startswith("equivalent") or (
                arguments.only and number not in arguments.only
            ):
                continue
            start = time.perf_counter()
            try:
                seen_by = copy.seen_by(fault, arguments.timeout)
            except ValueError as stale:
                print(f"{number:>2} {stale}", flush=True)
                unseen += 1
                continue
            unseen += not seen_by
            faults[number] = replace(fault, seen_by=seen_by)
            seconds = time.perf_counter() - start
            where = f"{number:>2} {fault.file} {fault.function}, {fault.kind}"
            print(f"{where}: {seen_by or 'NOT SEEN'} ({seconds:.0f} s)", flush=True)
            if arguments.draw is not None:
                kept = [asdict(one) for one in faults]
                DRAWN.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    print(f"{unseen} not seen")
    return int(unseen > 0)


if __name__ == "__main__":
    sys.exit(main())
