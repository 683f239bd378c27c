"""One part of a run in a process of its own: its units one after another, each row written at once.

`python -m ioi_fast.benchmarks.gpu.worker PART MODULE SETTING UNTIL MUST`; `program.py` starts it. A
unit that raises is a row that says so. Where an error leaves the device unusable the process ends
with LOST, and a new one goes on with the units that are left.
"""

from __future__ import annotations

import sys
import traceback

import torch

from ioi_fast.benchmarks.gpu.orphans import end_with_parent
from ioi_fast.benchmarks.gpu.part_files import PartFile
from ioi_fast.benchmarks.gpu.parts import Part
from ioi_fast.benchmarks.gpu.setting import Setting
from ioi_fast.benchmarks.gpu.units import Allowance, Row, Unit, failed, missed

LOST = 70  # exit status: errors on the device stay with the process that met them


def run_part(part: Part, setting: Setting, until: float, must: float) -> int:
    """Runs the units of a part that have no row yet; the exit status of this process."""
    file = PartFile(setting.out / f"{part.name}.json")
    if setting.device.index is not None:  # what names no device means this one
        torch.cuda.set_device(setting.device)
    units = {unit.name: unit for unit in part.units(setting)}
    file.say(units=list(units), machine=setting.machine)
    while file.left:
        unit = units[file.left[0]]
        file.say(running=unit.name)
        others = sum(units[name].weight for name in file.left[1:])
        share = unit.weight / (unit.weight + others)
        own = until - Allowance(until).left * (1 - share)
        row = row_of(unit, setting, Allowance(own, must))
        show(part, file.add(unit.name, row))
        if lost(setting):
            return LOST
    return 0


def row_of(unit: Unit, setting: Setting, allowance: Allowance) -> Row:
    """What a unit finds, or why it has not."""
    if unit.kernels and setting.no_kernels:
        return {"left_out": setting.no_kernels}
    try:
        return unit.run(allowance)
    except Exception as problem:
        last = traceback.format_exc().splitlines()[-12:]
        return {"failed": f"{type(problem).__name__}: {str(problem)[:600]}", "trace": last}


def show(part: Part, row: Row) -> None:
    """Prints a row."""
    if "left_out" in row:
        text = f"left out: {row['left_out']}"
    elif failed(row):
        text = f"FAILED: {row['failed'].splitlines()[0]}"
    else:
        try:
            text = part.line(row)
        except Exception as problem:  # its row is written, and others are to come
            text = f"(a line of it can't be made: {type(problem).__name__}: {problem})"
        if missed(row):
            text += f"  MISSED: {row['missed']}"
    print(f"  {row['unit']:<26} {text}", flush=True)


def lost(setting: Setting) -> bool:
    """Whether the device answers this process no more."""
    if setting.dry or not torch.cuda.is_available():
        return False
    try:
        torch.cuda.synchronize(setting.device)
        torch.ones(1, device=setting.device).add_(1).item()
    except RuntimeError:
        return True
    return False


def main(arguments: list[str]) -> int:
    """Runs a part until it is done."""
    end_with_parent()
    name, module, setting, until, must = arguments
    return run_part(Part(name, module), Setting.of_json(setting), float(until), float(must))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
