"""Peers on a device: each gives the job's own answer, and one that does not has no time."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from small_models import ragged_pairs, tiny_model
from torch import Tensor

if find_spec("triton") is None or find_spec("transformers") is None:
    pytest.skip("needs triton and transformers", allow_module_level=True)

from ioi_fast import GPT2, Circuit, PromptPairs, ablate, pair_sweep, path_patch
from ioi_fast.benchmarks.gpu.clock import Clock
from ioi_fast.benchmarks.gpu.jobs.job import EXACT, Job, one_pair
from ioi_fast.benchmarks.gpu.peers import part as peers
from ioi_fast.benchmarks.gpu.peers import plain_sweep
from ioi_fast.benchmarks.gpu.peers import rows as peer_rows
from ioi_fast.benchmarks.gpu.peers.hooked import HookedRuns, hooked_model
from ioi_fast.benchmarks.gpu.peers.plain_gpt2 import PlainGPT2, Steps, products
from ioi_fast.benchmarks.gpu.peers.plain_sets import SetSweep
from ioi_fast.benchmarks.gpu.peers.rows import BATCHED, CONES
from ioi_fast.benchmarks.gpu.setting import PRECISIONS, Setting
from ioi_fast.benchmarks.gpu.units import Allowance
from ioi_fast.benchmarks.jobs import cells, prompts

JOBS = ("J1", "J4", "J5")
KINDS = {"batched": BATCHED, "cone": CONES}
CIRCUIT = {"0.1": "S2", "0.2": "END", "1.0": "S1+1", "2.1": "END", "2.2": "S2", "3.0": "END"}
SETS = [
    {"0.1": "S2"},
    {"0.1": "S2", "2.1": "END"},
    {"2.1": "END"},
    {"1.0": "S1+1", "2.2": "S2", "3.0": "END"},
    {"3.0": "END"},
    {"0.1": "S2", "0.2": "END", "1.0": "S1+1", "2.1": "END"},
]
PAIRS = cells(4, 3, 16)
# Effects of single pairs are small beside the runs that are subtracted.
NEAR = {"J1": 5e-5, "J4": 5e-5, "J5": 5e-4}
HEADS = [f"{layer}.{head}" for layer in range(4) for head in range(3)]
ALLOWED = Allowance(time.monotonic() + 1e6)


@dataclass(frozen=True)
class Small:
    """A setting of four layers of three heads on the host."""

    host: GPT2 = field(default_factory=lambda: tiny_model(n_layer=4))
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dry: bool = True

    @property
    def model(self) -> GPT2:
        return self.host


SMALL = Small()


def small_job(name: str) -> Job:
    """A job whose sample is all of it, or some pairs."""
    pairs, whole = prompts(3, 12, 53), lambda values: values
    if name == "J1":
        asked = {"receivers": "logits", "position": "END"}
        return Job(name, path_patch, pairs, asked, HEADS, path_truth, whole, 12)
    if name == "J4":
        asked = {"variants": SETS, "base": Circuit(CIRCUIT)}
        return Job(name, ablate, pairs, asked, SETS, sets_truth, whole, len(SETS))
    chosen = partial(chosen_cells, PAIRS)
    return Job(name, pair_sweep, pairs, {"per_prompt": True}, PAIRS, pairs_truth, chosen, 162)


def chosen_cells(some: list, values: Tensor) -> Tensor:
    return torch.stack([values[cell] for cell in some])


def path_truth(model: GPT2) -> Tensor:
    asked = {"receivers": "logits", "position": "END"}
    return path_patch(model, prompts(3, 12, 53), HEADS, **asked, **EXACT).values


def sets_truth(model: GPT2) -> Tensor:
    return ablate(model, prompts(3, 12, 53), SETS, base=Circuit(CIRCUIT), **EXACT).values


def pairs_truth(model: GPT2) -> Tensor:
    return torch.stack([one_pair(model, prompts(3, 12, 53), cell, **EXACT) for cell in PAIRS])


@cache
def truth(name: str) -> Tensor:
    return small_job(name).truth(SMALL.host)


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are made of the small jobs, whose truth is the reference's in float64."""
    for name in JOBS:
        truth(name)  # before anything is broken on purpose
    monkeypatch.setattr(peer_rows, "job", lambda name, dry: small_job(name))
    monkeypatch.setattr(peer_rows, "truth_of", lambda setting, name: truth(name))


def row_of(name: str, rung: str, precision: str = "fp32", **changed: object) -> dict:
    one = replace(small_job(name), **changed)
    kind = KINDS[rung][name]
    return peer_rows.plain(SMALL, one, kind, precision, Steps(), False, ALLOWED)


def hooked_row(name: str, way: str) -> dict:
    model = cache(lambda: hooked_model(SMALL.host, SMALL.device))
    return peer_rows.hooked(SMALL, name, way, model, ALLOWED)


@pytest.mark.parametrize("rung", KINDS)
@pytest.mark.parametrize("name", JOBS)
def test_plain_torch_gives_the_answer(name: str, rung: str) -> None:
    row = row_of(name, rung)
    assert row["error"] <= NEAR[name] and "missed" not in row
    exact = row_of(name, rung, "fp64")
    assert exact["error"] <= 1e-6 and exact["meets"]
    half = row_of(name, rung, "bf16")
    assert half["error"] > 1e-3 and "missed" not in half
    for found, promised in ((row, 1e-4), (half, 2e-2)):
        assert found["meets"] == (found["error"] <= promised)


@pytest.mark.parametrize("rung", KINDS)
@pytest.mark.parametrize("name", JOBS)
@pytest.mark.parametrize("together", [1, 2, 5])
def test_chunks_do_not_matter(name: str, rung: str, together: int) -> None:
    one = small_job(name)
    with products("fp32"):
        sweep = KINDS[rung][name](PlainGPT2.of(SMALL.host, "fp32"), one)
        values = sweep.prepared(sweep.sampled(), together)()
    assert peer_rows.verdict(one.chosen(values), truth(name), "fp32")["error"] <= NEAR[name]


@pytest.mark.parametrize("rung", KINDS)
@pytest.mark.parametrize("name", JOBS)
def test_another_job_has_no_time(name: str, rung: str, monkeypatch) -> None:
    """A mask that is dropped, another END, and what this job alone can have wrong."""
    pairs = prompts(3, 12, 53)
    earlier = {role: at for role, at in pairs.positions.items() if role != "END"}
    places = {**earlier, "END": pairs.end - 1}
    cut = PromptPairs(pairs.orig, pairs.new, pairs.answers, pairs.wrong_answers, positions=places)
    for precision in ("fp32", "bf16"):
        missed = row_of(name, rung, precision, pairs=cut)
        assert "missed" in missed and "seconds" not in missed
    function = torch.nn.functional.scaled_dot_product_attention
    with monkeypatch.context() as broken:
        broken.setattr(torch.nn.functional, "scaled_dot_product_attention",
                       lambda q, k, v, mask=None, is_causal=False, scale=None: function(
                           q, k, v, scale=scale))  # fmt: skip
        assert "missed" in row_of(name, rung)
    with monkeypatch.context() as broken:
        if name == "J4":
            clean = SetSweep.means
            broken.setattr(SetSweep, "means", lambda self: [0 * mean for mean in clean(self)])
        else:
            kind = KINDS[rung][name]
            writes = kind._writes
            broken.setattr(kind, "_writes", lambda self, passed: 1.002 * writes(self, passed))
        assert "missed" in row_of(name, rung)


@pytest.mark.parametrize(
    ("name", "rung"),
    [
        pytest.param(name, rung, marks=[pytest.mark.slow] * (rung == "hooks, two passes"))
        for name in JOBS
        for rung in peers.HOOKED[name]
    ],
)
def test_hooks_give_the_answer(name: str, rung: str, monkeypatch) -> None:
    row = hooked_row(name, peers.HOOKS[rung])
    assert row["error"] <= NEAR[name] and "missed" not in row
    assert row["checked"] == len(small_job(name).sample)
    clean = HookedRuns._clean

    def lost(self: HookedRuns, tokens: Tensor) -> tuple:
        held, metric = clean(self, tokens)
        return {at: value * (0.99 if at[0] == "z" else 1) for at, value in held.items()}, metric

    monkeypatch.setattr(HookedRuns, "_clean", lost)
    assert "missed" in hooked_row(name, peers.HOOKS[rung])


def test_values_that_are_not_numbers_are_missed() -> None:
    values = truth("J1").clone()
    values[0, 0] = float("nan")
    row = peer_rows.verdict(values, truth("J1"), "bf16")
    assert "missed" in row and not row["meets"] and "error –" in peers.line({**row, "error": None})


@pytest.mark.parametrize("name", JOBS)
def test_other_prompts_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="END at one token"):
        row_of(name, "cone", pairs=ragged_pairs())


def test_knock_outs_away_from_the_circuit_are_refused() -> None:
    asked = {"variants": [{"0.1": "END"}], "base": Circuit(CIRCUIT)}
    with pytest.raises(ValueError, match=r"0\.1 does not live at END"):
        row_of("J4", "cone", asked=asked)


def test_what_does_not_fit_is_halved() -> None:
    asked = []

    def run(size: int) -> Tensor:
        asked.append(size)
        if size > 3:
            raise torch.OutOfMemoryError("no room")
        return torch.ones(size)

    size, made = plain_sweep.fitting(run, 25)
    assert (asked, size, len(made)) == ([25, 12, 6, 3], 3, 3)

    def never(size: int) -> Tensor:
        raise torch.OutOfMemoryError("no room")

    with pytest.raises(torch.OutOfMemoryError):
        plain_sweep.fitting(never, 4)


@dataclass
class FakeClock:
    """A device that takes a second for each call, and counts them."""

    calls: list[int] = field(default_factory=list)
    on_gpu: bool = True

    def seconds(self, run, repeats: int) -> list[float]:
        self.calls.append(repeats)
        return [1.0] * repeats


def test_a_short_time_takes_pieces_and_a_long_one_repeats() -> None:
    with products("fp32"):
        sweep = CONES["J5"](PlainGPT2.of(SMALL.host, "fp32"), small_job("J5"))
        some, now = sweep.sampled()[:4], time.monotonic()
        short = peer_rows.times(sweep, some, 1, FakeClock(), Allowance(now + 6.0))
        long = peer_rows.times(sweep, some, 1, FakeClock(), Allowance(now + 1000.0))
    assert short["sampled"] < short["of"] == sweep.pieces * 9
    assert short["seconds"][0] == pytest.approx(short["of"] / short["sampled"])
    assert "sampled" not in long and long["seconds"] == [1.0] * peer_rows.REPEATS


def test_compiled_steps_give_the_answer() -> None:
    """As torch sees them; the dry run's backend makes no code of them."""
    before = peers.compilations()
    steps = peers.compiled_steps("eager")
    for name in JOBS:
        for precision in ("fp32", "bf16"):
            row = peer_rows.plain(SMALL, small_job(name), CONES[name], precision, steps, False,
                                  ALLOWED)  # fmt: skip
            assert "missed" not in row
    made = peers.compilations() - before
    assert made == 6, "each step once for a precision, whatever the job and its rows"


def test_a_recording_waits_for_nothing() -> None:
    row = peer_rows.plain(SMALL, small_job("J1"), CONES["J1"], "fp32", Steps(), True, ALLOWED)
    assert row["meets"] and row["seconds"] == []


def test_units_are_the_ladder(tmp_path: Path) -> None:
    setting = Setting(tmp_path)
    found = list(peers.units(setting))
    names = [unit.name for unit in found]
    assert len(set(names)) == len(names)
    rungs = {"batched", "cone", "compiled", "ours"}
    assert {f"{n} {r} {p}" for n in JOBS for r in rungs for p in PRECISIONS} <= set(names)
    assert all(unit.kernels == (" ours " in unit.name or " graphs " in unit.name) for unit in found)
    assert not [unit for unit in peers.units(replace(setting, jobs=("J6",)))]
    one = replace(setting, jobs=("J1",), precisions=("fp32",))
    assert {unit.name.split()[0] for unit in peers.units(one)} == {"J1"}


def test_rows_of_a_dry_run(tmp_path: Path, monkeypatch) -> None:
    """Of the real small jobs, but for what is compiled or needs the interpreter."""
    monkeypatch.undo()
    for unit in peers.units(Setting(tmp_path, dry=True)):
        if unit.kernels or "compiled" in unit.name:
            continue
        row = unit.run(ALLOWED)
        assert unit.name == f"{row['job']} {row['rung']} {row['precision']}"
        assert row["seconds"] == [] and "missed" not in row
        if row["rung"] == "TransformerLens" and find_spec("transformer_lens") is None:
            assert row["left_out"] == "transformer_lens is not installed"
        else:
            assert "not timed" in peers.line(row)


def test_a_line_says_all() -> None:
    row = {"error": 1e-5, "meets": True, "seconds": [0.5, 1.0, 2.0], "sampled": 20, "of": 144}
    more = {"batch": 32, "compile_seconds": 7.2, "compile_backend": "inductor"}
    assert peers.line({**row, **more}) == (
        "error 1e-05, 1e+03 ms, from 20 of 144, 32 at a time, 7 s with compiling (inductor)"
    )
    assert Clock(torch.device("cpu")).seconds(lambda: None, 3) == []
