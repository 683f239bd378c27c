"""What the Triton kernels take of a GPU, from compiling them ahead of time: no GPU is needed."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from ioi_fast.kernels import (
    triton_attention,
    triton_attention_long,
    triton_products,
    triton_rows,
    triton_tiles,
)
from ioi_fast.kernels.triton_tiles import Launch

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
# Of a multiprocessor: registers, shared memory in KB, warps (data sheets), and of a block.
SHARED = {"sm_80": 163, "sm_90": 227, "sm_100": 227, "gfx942": 64}
WARPS = {"sm_80": 64, "sm_90": 64, "sm_100": 64}
REGISTERS = 65536
PRECISIONS = ("ieee", "tf32", "bf16")
_FLOATS = (
    "q",
    "k",
    "v",
    "x",
    "pre",
    "rows",
    "weight",
    "w_o",
    "gain",
    "direction",
    "sources",
    "out",
)
_OF_NO_ROWS = (triton_rows.gelu_delta_kernel, triton_rows.to_tf32_kernel)
_PLACES = ("at", "changed", "index", "variant", "heads")
_TENSOR_CORES = {"cuda": r"\b(?:HMMA|HGMMA|UTCHMMA)", "hip": "v_mfma"}


@dataclass(frozen=True, slots=True)
class Case:
    """A kernel with the constants that a launch gives it."""

    kernel: Callable
    launch: Launch
    precision: str | None  # None where nothing is multiplied by a matrix
    aligned: bool = True  # rows begin at multiples of 16, as those of every GPT-2 do

    @property
    def name(self) -> str:
        sizes = "x".join(str(size) for size in self.launch.constants.values())
        rows = "" if self.aligned else "odd rows"
        return " ".join(filter(None, (self.kernel.__name__, sizes, self.precision, rows)))


@dataclass(frozen=True, slots=True)
class Resources:
    """Of one program: registers a thread, bytes of spilled registers and of shared memory."""

    registers: int
    spilled: int
    shared: int
    tensor_cores: bool
    warps: int

    def occupancy(self, target: str) -> float | None:
        """Share of a multiprocessor's warps that registers and shared memory leave room for."""
        if target not in WARPS:
            return None
        by_registers = REGISTERS // (-(-self.registers // 8) * 8 * 32 * self.warps)
        by_shared = SHARED[target] * 1024 // max(1, self.shared)
        programs = min(by_registers, by_shared, WARPS[target] // self.warps)
        return programs * self.warps / WARPS[target]


def cases() -> Iterator[Case]:
    """Every kernel, tile and precision that a launch can choose, for aligned rows and others."""
    for case in _aligned_cases():
        yield case
        if case.kernel not in _OF_NO_ROWS:
            yield replace(case, aligned=False)


def _aligned_cases() -> Iterator[Case]:
    for launch in triton_tiles.ROWS:
        yield Case(triton_rows.layernorm_delta_kernel, launch, None)
        yield Case(triton_rows.readout_delta_kernel, launch, None)
    for kernel in _OF_NO_ROWS:
        yield Case(kernel, triton_tiles.GELU, None)
    for launch in triton_tiles.HEAD_WRITE.values():
        yield Case(triton_products.head_write_kernel, launch, "ieee")
    for precision in PRECISIONS:
        for launch in (*triton_tiles.MLP_IN_FEW, *triton_tiles.MLP_IN):
            yield Case(triton_products.mlp_in_delta_kernel, launch, precision)
        for keys, width in triton_tiles.KEYS_AND_WIDTHS:
            for one_query, kernel in (
                (False, triton_attention.attention_delta_queries),
                (True, triton_attention.attention_delta_last),
            ):
                launch = triton_tiles.attention_of(keys, width, one_query)
                yield Case(kernel, launch, precision)
        for launch in triton_tiles.LONG:
            yield Case(triton_attention_long.attention_delta_long, launch, precision)


@cache
def compiled(case: Case, target: str) -> Resources:
    """Compiles a case as it will be launched."""
    launch, constants = case.launch, constants_of(case)
    types, multiples = signature(case)
    options = {"num_warps": launch.warps, "num_stages": launch.stages, "enable_fp_fusion": True}
    if target != "gfx942":
        options["maxnreg"] = triton_tiles.MOST_REGISTERS
    places = {name: (index,) for index, name in enumerate(case.kernel.arg_names)}
    fixed = {places[name]: value for name, value in constants.items()}
    hints = {places[name]: [["tt.divisibility", 16]] for name in multiples}
    source = ASTSource(case.kernel, types, fixed, hints)
    made = triton.compile(source, target=TARGETS[target], options=options)
    read = _of_amd if target == "gfx942" else _of_nvidia
    registers, spilled, cores = read(made.asm)
    return Resources(registers, spilled, made.metadata.shared, cores, case.launch.warps)


def compiled_all(asked: Sequence[tuple[Case, str]]) -> dict[tuple[Case, str], Resources]:
    """Cases for targets, in as many processes as there are processors."""
    places = {case: index for index, case in enumerate(cases())}
    work = [(places[case], target) for case, target in asked]
    # A process that torch has threads in can't be forked.
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        found = pool.map(_compiled_at, *zip(*work, strict=True), chunksize=8)
        return dict(zip(asked, found, strict=True))


def _compiled_at(place: int, target: str) -> Resources:
    return compiled(list(cases())[place], target)


def constants_of(case: Case) -> dict[str, object]:
    """What is compiled into a case."""
    precision = {} if case.precision is None else {"PRECISION": case.precision}
    return {**case.launch.constants, **precision}


def signature(case: Case) -> tuple[dict[str, str], set[str]]:
    """Types of a kernel's arguments, and those of which a launch says that they are multiples of
    16: pointers, and all numbers that a kernel does not leave out of it, or none of these."""
    constants, types, multiples = constants_of(case), {}, set()
    for parameter in case.kernel.params:
        name = parameter.name
        types[name] = "constexpr" if name in constants else _type(name)
        told = types[name] == "i32" and not parameter.do_not_specialize
        if types[name].startswith("*") or (told and case.aligned):
            multiples.add(name)
    return types, multiples


def _type(name: str) -> str:
    if name == "table":
        return "*i8"
    if name in _PLACES:
        return "*i64"
    if name in _FLOATS or name.startswith("delta"):
        return "*fp32"
    if name in ("scale", "epsilon"):
        return "fp32"
    return "i32"  # steps of a tensor; sizes


def _of_nvidia(asm: dict) -> tuple[int, int, bool]:
    """From the assembler's own tool: spilled registers show as stack, and never as LOCAL."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(asm["cubin"])
        file.flush()
        usage, text = (
            subprocess.run(
                [tool, what, file.name], capture_output=True, text=True, check=True
            ).stdout
            for what in ("--dump-resource-usage", "-sass")
        )
    registers, stack = map(int, re.search(r"REG:(\d+) STACK:(\d+)", usage).groups())
    local = len(re.findall(r"\b(?:LDL|STL)\b", text))
    return registers, max(stack, 4 * local), bool(re.search(_TENSOR_CORES["cuda"], text))


def _said(*command: object) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _of_amd(asm: dict) -> tuple[int, int, bool]:
    text = asm["amdgcn"]

    def figure(name: str) -> int:
        return int(re.search(rf"\.{name}:\s+(\d+)", text)[1])

    spilled = max(4 * figure("vgpr_spill_count"), figure("private_segment_fixed_size"))
    return figure("vgpr_count"), spilled, _TENSOR_CORES["hip"] in text


def lines() -> list[str]:
    """The table of all cases."""
    found = [
        f"| kernel, sizes, precision | warps | {' | '.join(TARGETS)} |",
        f"|---|---|{'---|' * len(TARGETS)}",
    ]
    every = list(cases())
    made = compiled_all([(case, target) for case in every for target in TARGETS])
    for case in every:
        cells = [_cell(made[case, target], target) for target in TARGETS]
        found.append(f"| {case.name} | {case.launch.warps} | {' | '.join(cells)} |")
    return found


def _cell(found: Resources, target: str) -> str:
    room = found.occupancy(target)
    text = f"{found.registers} / {found.shared / 1024:.0f}"
    if found.spilled:
        text += f" ({found.spilled} bytes spilled)"
    return text if room is None else f"{text}, {room:.0%}"
