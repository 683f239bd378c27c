"""A circuit's evaluation and points of completeness against TransformerLens 4.3 with hooks.

On random weights of GPT-2 small's shape, with the published circuit of 26 heads and ragged prompts
of two forms. Its script contains none of this project's code.
"""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
import torch
from checkpoints import lively_model, write
from compare import assert_close
from small_models import ragged_pairs
from torch import Tensor

from ioi_fast import PromptPairs, load
from ioi_fast.benchmarks import peer_environment
from ioi_fast.ioi.circuits import published_circuit
from ioi_fast.ioi.evaluation import Evaluation, class_sets, evaluate, random_sets

HERE = Path(__file__).parent / "instruments"
N = 8

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def pairs() -> PromptPairs:
    drawn = ragged_pairs(N, T=12, vocab_size=500, seed=7)
    at = {**drawn.positions, "S1+1": drawn.positions["S1"] + 1}
    given = (drawn.orig, drawn.new, drawn.answers, drawn.wrong_answers)
    return PromptPairs(*given, positions=at, forms=drawn.forms)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape = {"n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 600, "n_positions": 32}
    return write(tmp_path_factory.mktemp("checkpoint"), lively_model(5, **shape))


SETS = [*class_sets(published_circuit()).values(), *random_sets(published_circuit(), 2)]


@pytest.fixture(scope="module")
def ours(checkpoint: Path, pairs: PromptPairs) -> Evaluation:
    return evaluate(load(checkpoint), pairs, published_circuit(), SETS)


@pytest.fixture(scope="module")
def theirs(checkpoint: Path, pairs: PromptPairs, tmp_path_factory) -> dict[str, Tensor]:
    try:
        python = peer_environment.python_of(peer_environment.requirements("transformer_lens_4"))
    except peer_environment.NoPackageIndex as reason:
        pytest.skip(str(reason))
    folder, circuit = tmp_path_factory.mktemp("circuits"), published_circuit()
    kept = torch.full((12, 12, N), -1)
    for head, role in circuit.nodes:
        kept[head.layer, head.head] = pairs.positions[role]
    sets = torch.zeros(len(SETS), 12, 12, dtype=torch.bool)
    for row, heads in enumerate(SETS):
        for head in heads:
            sets[row, head.layer, head.head] = True
    request, output = folder / "request.npz", folder / "found.npz"
    columns = {"orig": pairs.orig, "new": pairs.new, "end": pairs.end, "forms": pairs.forms}
    columns |= {"answers": pairs.answers, "wrong_answers": pairs.wrong_answers}
    columns |= {"kept": kept, "sets": sets}
    numpy.savez(request, **{name: column.numpy() for name, column in columns.items()})
    script = HERE / "transformer_lens_circuits.py"
    peer_environment.run_script(python, script, checkpoint, request, output, folder=folder)
    with numpy.load(output) as file:
        assert str(file["version"]).startswith("4.3.")
        return {name: torch.from_numpy(file[name]).double() for name in file.files[1:]}


@pytest.mark.parametrize("name", ["of_model", "of_circuit", "in_model", "in_circuit"])
def test_every_run(name: str, ours: Evaluation, theirs: dict[str, Tensor]) -> None:
    assert_close(getattr(ours, name), theirs[name])


def test_points_and_faithfulness(ours: Evaluation, theirs: dict[str, Tensor]) -> None:
    points = torch.stack([theirs["in_circuit"].mean(1), theirs["in_model"].mean(1)], -1)
    assert_close(ours.points, points)
    share = float(theirs["of_circuit"].mean() / theirs["of_model"].mean())
    assert ours.faithfulness.share == pytest.approx(share, rel=1e-3)


def test_runs_differ(theirs: dict[str, Tensor]) -> None:
    """Else their equality would say nothing."""
    for name in ("in_model", "in_circuit"):
        assert (theirs[name].std(0) > 1e-2).all()
    assert (theirs["of_model"] - theirs["of_circuit"]).abs().min() > 1e-2
