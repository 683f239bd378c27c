"""Every compiled tile timed at the shapes of the jobs, and a launch table from what is faster.

The table goes to the run's folder, and to where the engine reads it (kernels/launches), from where
on this device, and no other, takes its tiles.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from ioi_fast.benchmarks.gpu.clock import Clock
from ioi_fast.benchmarks.gpu.kernels import alone as kernels
from ioi_fast.benchmarks.gpu.kernels.costs import work
from ioi_fast.benchmarks.gpu.kernels.peers import error_of, exact
from ioi_fast.benchmarks.gpu.kernels.shapes import Call, calls_of
from ioi_fast.benchmarks.gpu.kernels.table_files import TableFile
from ioi_fast.benchmarks.gpu.kernels.tuning_rules import Choice, Rounds, chosen
from ioi_fast.benchmarks.gpu.setting import Setting
from ioi_fast.benchmarks.gpu.units import Allowance, Row, Unit
from ioi_fast.kernels import triton_tiles, tuned_tiles
from ioi_fast.kernels.triton_tiles import Launch

WEIGHT = 4.0  # of a unit, beside one of a kernel in a job
Group = list[tuple[Call, Launch]]


def units(setting: Setting, jobs: Sequence[str]) -> Iterator[Unit]:
    """Every operation that has tiles to choose from, in each precision."""
    first = True
    for operation in tuned_tiles.KEYS:
        for precision in kernels.precisions_of(setting, operation):
            run = unit_of(setting, jobs, operation, precision, first)
            yield Unit(f"tune {operation} {precision}", run, WEIGHT)
            first = False


def unit_of(
    setting: Setting, jobs: Sequence[str], operation: str, precision: str, first: bool
) -> Callable[[Allowance], Row]:
    """What makes the rows of a table for one operation; the first begins the table anew."""

    def run(allowance: Allowance) -> Row:
        table = TableFile.of(setting, anew=first)
        with kernels.launched_on(setting.device), torch.no_grad():
            found = tuned(setting, jobs, operation, precision, allowance, table)
        return {"operation": operation, "precision": precision, **found, **table.places()}

    return run


def tuned(
    setting: Setting,
    jobs: Sequence[str],
    operation: str,
    precision: str,
    allowance: Allowance,
    table: TableFile,
) -> Row:
    """Goes through keys, those of most work first, until none or no time is left."""
    timer = TileTimer(Clock(setting.device), precision)
    groups = groups_of([calls_of(setting, name) for name in jobs], operation, timer)
    rounds = Rounds(1, 1) if setting.dry else Rounds()
    kept, not_kept = [], Counter()
    for done, (key, group) in enumerate(groups):
        if done and (allowance.left <= 0 or setting.dry):
            break
        tiles = triton_tiles.covering(operation, key)
        timer.forget()
        choice = chosen(group, tiles, timer, rounds, over=lambda: allowance.left <= 0)
        if choice.tile is None:
            not_kept[choice.why.split(":")[0]] += 1
        else:
            kept.append(table.add(row_of(operation, precision, key, choice)))
        done += 1
    table.write()
    found = {"keys": len(groups), "timed": done, "kept": kept, "not_kept": dict(not_kept)}
    return found | ({"missed": "; ".join(timer.wrong)} if timer.wrong else {})


def row_of(operation: str, precision: str, key: dict[str, int], choice: Choice) -> Row:
    """A row of a launch table."""
    means = kernels.meant(precision, dry=False)
    return {
        "kernel": operation,
        "precision": None if None in tuned_tiles.PRECISIONS[operation] else means,
        "key": key,
        "tile": tuned_tiles.tile_of(choice.tile),
        "milliseconds": 1e3 * choice.seconds,
        "before": 1e3 * choice.before,
    }


def groups_of(
    recordings: Sequence[Counter[Call]], operation: str, timer: TileTimer
) -> list[tuple[dict[str, int], Group]]:
    """Calls by the key of a table, each with its launch so far: most work first in both."""
    weights: Counter[Call] = Counter()
    for calls in recordings:
        for call, count in calls.items():
            if call.operation == operation:
                weights[call] += count * work(call)
    groups: dict[tuned_tiles.Key, Group] = {}
    totals: Counter[tuned_tiles.Key] = Counter()
    for call, weight in weights.most_common():
        sizes, before = timer.asked_for(call)
        key = tuned_tiles.key_of(operation, sizes)
        groups.setdefault(key, []).append((call, before))
        totals[key] += weight
    names = tuned_tiles.KEYS[operation]
    return [(dict(zip(names, key, strict=True)), groups[key]) for key, _ in totals.most_common()]


class TileTimer:
    """Seconds of a call's kernels with a tile; a tile that fails or errs takes for ever.

    Another tile may add in another order: results agree as far as the precision goes, not bit by
    bit. In a dry run all tiles take one second.
    """

    def __init__(self, clock: Clock, precision: str) -> None:
        self.clock, self.precision = clock, precision
        self.meant = kernels.meant(precision, dry=not clock.on_gpu)
        self.wrong: list[str] = []
        self.forget()

    def forget(self) -> None:
        """Lets go of the inputs and results of calls so far."""
        self._runs: dict[tuple[Call, Launch], Callable | None] = {}
        self._truths: dict[Call, tuple[dict, torch.Tensor]] = {}

    def __call__(self, call: Call, tile: Launch) -> float:
        if (call, tile) not in self._runs:
            self._runs[call, tile] = self._prepared(call, tile)
        run = self._runs[call, tile]
        if run is None:
            return float("inf")
        seconds = self.clock.cold_seconds(run, 1)
        return seconds[0] if seconds else 1.0

    def asked_for(self, call: Call) -> tuple[tuned_tiles.Key, Launch]:
        """The sizes that the engine asks a launch for, and what it takes so far; nothing runs."""
        from ioi_fast.kernels import triton_ops

        seen, tuned = [], tuned_tiles.tuned

        def asked(operation, precision, sizes, device, today):
            taken = tuned(operation, precision, sizes, device, today)
            seen.append((tuple(map(int, sizes)), taken))
            return taken

        def nothing(*given: object, **more: object) -> None:
            pass

        with (
            kernels.replaced(tuned_tiles, "tuned", asked),
            kernels.replaced(triton_ops, "launch_kernel", nothing),
        ):
            kernels.operation_of(call.operation, call.inputs(self.clock.device), self.meant)()
        (found,) = seen
        return found

    def _prepared(self, call: Call, tile: Launch) -> Callable | None:
        """A call's kernels, compiled and run once, or None where they fail or err."""
        if call not in self._truths:
            given = call.inputs(self.clock.device)
            self._truths[call] = given, exact(call.operation, given)
        given, truth = self._truths[call]
        try:
            out, run = kernels.kernels_of(call.operation, given, self.meant, tile)
            error = error_of(out, truth)
        except Exception as problem:  # whatever a compiler or a driver may say
            said = f"{type(problem).__name__}: {str(problem)[:300]}"
        else:
            if error <= kernels.PROMISED_OF_A_KERNEL[self.precision]:
                return run
            said = f"error {error:.1e}"
        self.wrong.append(f"{tuned_tiles.tile_of(tile)} at {call.described()}: {said}")
        return None


def compiled_ahead(setting: Setting) -> Unit:
    """All tiles compiled in as many processes as there are processors, before the first is timed.

    Whether a launch then finds what they have left in Triton's cache is said in the row: it adds
    no entry if it does.
    """

    def run(allowance: Allowance) -> Row:
        if setting.dry:
            return {"cases": 0, "why": "the interpreter compiles nothing"}
        from ioi_fast.benchmarks import kernel_resources
        from ioi_fast.kernels import triton_ops

        major, minor = torch.cuda.get_device_capability(setting.device)
        target = f"sm_{major}{minor}"
        if torch.version.hip is not None or target not in kernel_resources.TARGETS:
            return {"cases": 0, "why": f"{target} is none of what is compiled ahead"}
        cases = [(case, target) for case in kernel_resources.cases() if case.aligned]
        before, begun = entries(), time.perf_counter()
        kernel_resources.compiled_all(cases)
        spent, after = time.perf_counter() - begun, entries()
        with kernels.launched_on(setting.device):
            rows = torch.zeros(16, 768, device=setting.device)
            triton_ops.layernorm_delta(rows, rows, rows[0], 1e-5)
        found = {"cases": len(cases), "compile_seconds": spent, "entries_before": before}
        return {**found, "entries": after, "entries_after_a_launch": entries()}

    return Unit("tune: compiled ahead", run, 3 * WEIGHT)


def entries() -> int:
    """Folders in Triton's cache, one a kernel."""
    home = os.environ.get("TRITON_HOME") or str(Path.home())
    folder = Path(os.environ.get("TRITON_CACHE_DIR") or Path(home) / ".triton" / "cache")
    return sum(1 for _ in folder.iterdir()) if folder.is_dir() else 0


def line(row: Row) -> str:
    """What tuning found, in one line."""
    if "cases" in row:
        if not row["cases"]:
            return row["why"]
        added = row["entries_after_a_launch"] - row["entries"]
        return f"{row['cases']} tiles in {row['compile_seconds']:.0f} s; a launch added {added}"
    text = f"{row['timed']} of {row['keys']} keys timed, {len(row['kept'])} rows"
    gains = [one["milliseconds"] / one["before"] for one in row["kept"]]
    if gains:
        text += f", at best {min(gains):.2f} of the time before"
    return f"{text}, {row['table']}"
