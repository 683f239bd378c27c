"""Against published code for path patching and circuit extraction, from a folder of the user's.

pytest -m slow tests/test_published_code.py --peer-path DIR, with DIR, or a folder in it, holding
path_patching.py or the package path_patching (github.com/callummcdougall/path_patching), and
easy_transformer/ with ioi_utils.py, ioi_circuit_extraction.py and experiments.py
(github.com/redwoodresearch/Easy-Transformer); either alone is enough for its own tests. The code
runs in an environment of its own, that of TransformerLens 3.9, in float64, on the same checkpoint
and tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy
import path_experiments
import pytest
import torch
from compare import assert_close, assert_sweep
from path_experiments import EXPERIMENTS
from torch import Tensor

from ioi_fast import GPT2, PromptPairs, load
from ioi_fast.benchmarks import peer_environment
from ioi_fast.ioi.circuits import published_circuit
from ioi_fast.ioi.evaluation import Evaluation, class_sets, evaluate
from ioi_fast.results.promised_accuracy import PROMISED

SCRIPT = Path(__file__).parent / "instruments" / "published_code.py"
# Older code takes seconds a sender: one head of every other layer.
SENDERS = path_experiments.drawn_senders(each=1)[::2]
SETS = list(class_sets(published_circuit()).values())[:3]
HOW = "published code is wanted: give its folder by --peer-path DIR (see this module)"
LOOKED_FOR = {
    "path_patching": ("path_patching.py", "path_patching/__init__.py"),
    "easy_transformer": ("easy_transformer/ioi_circuit_extraction.py",),
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
of_either = pytest.mark.parametrize("found", list(LOOKED_FOR), indirect=True)
of_authors = pytest.mark.parametrize("found", ["easy_transformer"], indirect=True)

Found = dict[str, Tensor]


@pytest.fixture(scope="module")
def pairs() -> PromptPairs:
    return path_experiments.prompts()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return path_experiments.checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> GPT2:
    return load(checkpoint)


@pytest.fixture(scope="module")
def run(
    checkpoint: Path,
    pairs: PromptPairs,
    pytestconfig: pytest.Config,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], Found]:
    """What the published code finds, by the name of its module."""
    given = pytestconfig.getoption("--peer-path")
    if given is None:
        pytest.skip(HOW)

    def run(name: str) -> Found:
        code = folder_of(name, Path(given))
        try:
            python = peer_environment.python_of(peer_environment.requirements("transformer_lens_3"))
        except peer_environment.NoPackageIndex as reason:
            pytest.skip(str(reason))
        folder = tmp_path_factory.mktemp(name)
        columns = circuit_columns(pairs)
        request = path_experiments.request(folder / "request.npz", pairs, SENDERS, **columns)
        files = (code, checkpoint, request, folder / "found.npz")
        peer_environment.run_script(python, SCRIPT, name, *files, folder=folder)
        with numpy.load(files[-1]) as file:
            return {one: torch.from_numpy(file[one]) for one in file.files}

    return run


@pytest.fixture(scope="module")
def found(request: pytest.FixtureRequest, run: Callable[[str], Found]) -> Found:
    """The same by the name that a test is given."""
    return run(request.param)


def folder_of(name: str, given: Path) -> Path:
    """The folder that a module is imported from: the one given or one in it."""
    given = given.absolute()
    inside = sorted(one for one in given.iterdir() if one.is_dir()) if given.is_dir() else []
    for folder in (given, *inside):
        if any((folder / file).is_file() for file in LOOKED_FOR[name]):
            return folder
    pytest.skip(f"--peer-path {given} holds no {' or '.join(LOOKED_FOR[name])}")


def circuit_columns(pairs: PromptPairs) -> dict[str, Tensor]:
    """The published circuit and the sets that are knocked out of it, for the script."""
    kept = torch.full((12, 12, len(pairs)), -1)
    for head, role in published_circuit().nodes:
        kept[head.layer, head.head] = pairs.positions[role]
    sets = torch.zeros(len(SETS), 12, 12, dtype=torch.bool)
    for row, heads in enumerate(SETS):
        for head in heads:
            sets[row, head.layer, head.head] = True
    return {"forms": pairs.forms, "kept": kept, "sets": sets}


@pytest.fixture(scope="module")
def evaluation(model: GPT2, pairs: PromptPairs) -> Evaluation:
    return evaluate(model, pairs, published_circuit(), SETS)


def asked_of(name: str, found: Found) -> path_experiments.Experiment:
    """An experiment as the code defines it: some versions patch whole layers, at all positions."""
    experiment = EXPERIMENTS[name]
    if not experiment.receivers or not found.get("whole_layers", False):
        return experiment
    layers = {(one.split(".")[0], one.split(".")[2]): None for one in experiment.receivers}
    every = [f"{layer}.{head}.{site}" for layer, site in layers for head in range(12)]
    return replace(experiment, receivers=tuple(every), position=None)


@pytest.mark.parametrize("name", list(EXPERIMENTS))
@of_either
def test_every_sender_of_an_experiment(
    found: Found, name: str, model: GPT2, pairs: PromptPairs
) -> None:
    ours = asked_of(name, found).ours(model, pairs, SENDERS)
    assert ours.backend.startswith("cpu/")
    assert_sweep(ours.values, found[name], PROMISED["fp32"])
    assert_close(ours.base, found["base"], PROMISED["fp32"], "base")


@pytest.mark.parametrize("name", list(EXPERIMENTS))
@of_either
def test_paths_without_mlps_differ(
    found: Found, name: str, model: GPT2, pairs: PromptPairs
) -> None:
    """A definition that is another one shows, by a hundred times what is allowed."""
    other = asked_of(name, found).ours(model, pairs, SENDERS, between="nothing")
    with pytest.raises(AssertionError, match="error of the sweep"):
        assert_sweep(other.values, found[name], 100 * PROMISED["fp32"])


@of_authors
@pytest.mark.parametrize("name", ["of_circuit", "in_circuit", "in_model"])
def test_runs_of_the_circuit(found: Found, name: str, evaluation: Evaluation) -> None:
    assert_close(evaluation.of_model, found["base"], PROMISED["fp32"], "base")
    assert_close(getattr(evaluation, name), found[name], PROMISED["fp32"], name)
    assert (found[name] - found["base"]).abs().max() > 0.01, "nothing was knocked out"


@of_authors
def test_points_of_completeness(found: Found, evaluation: Evaluation) -> None:
    points = torch.stack([found["in_circuit"].mean(1), found["in_model"].mean(1)], -1)
    assert_close(evaluation.points, points, PROMISED["fp32"])
    swapped = points.flip(-1)
    with pytest.raises(AssertionError, match="error"):
        assert_close(evaluation.points, swapped, 100 * PROMISED["fp32"])
