"""The paper's path experiments against its four passes in TransformerLens 4.3 with hooks.

E1 (heads to the logits), E6 (to queries of three heads) and E11 (to values of four heads at S2) on
random weights of GPT-2 small's shapes and ragged prompts, for two heads drawn from every layer.
TransformerLens has no path patching with frozen heads, so the script does it with its hooks; it
contains none of this project's code.
"""

from __future__ import annotations

from collections.abc import Callable
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
from ioi_fast.results.promised_accuracy import PROMISED

HERE = Path(__file__).parent / "instruments"
SENDERS = path_experiments.drawn_senders()

# The environment is built inside the first test, which may have to download torch.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

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
    checkpoint: Path, pairs: PromptPairs, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Found]:
    """TransformerLens' changes of the metric, [S, N] by experiment, and base [N]."""
    try:
        python = peer_environment.python_of(peer_environment.requirements("transformer_lens_4"))
    except peer_environment.NoPackageIndex as reason:
        pytest.skip(str(reason))

    def run(*settings: str, senders: list[str] = SENDERS, earlier: int = 0) -> Found:
        folder = tmp_path_factory.mktemp("paths")
        request = path_experiments.request(folder / "request.npz", pairs, senders, earlier)
        script, output = HERE / "transformer_lens_paths.py", folder / "found.npz"
        files = (checkpoint, request, output)
        peer_environment.run_script(python, script, *files, *settings, folder=folder)
        with numpy.load(output) as file:
            assert str(file["version"]).startswith("4.3.")
            return {name: torch.from_numpy(file[name]) for name in (*EXPERIMENTS, "base")}

    return run


@pytest.fixture(scope="module")
def theirs(run: Callable[..., Found]) -> Found:
    return run("--dtype=float64")


@pytest.mark.parametrize("name", list(EXPERIMENTS))
def test_every_sender_of_an_experiment(
    name: str, model: GPT2, pairs: PromptPairs, theirs: Found
) -> None:
    """By what a caller gets who names no backend, in fp32."""
    ours = EXPERIMENTS[name].ours(model, pairs, SENDERS)
    assert ours.backend.startswith("cpu/")
    assert_sweep(ours.values, theirs[name], PROMISED["fp32"])
    assert_close(ours.base, theirs["base"], PROMISED["fp32"], "base")


@pytest.mark.parametrize("name", list(EXPERIMENTS))
def test_our_definition_in_float64(
    name: str, model: GPT2, pairs: PromptPairs, theirs: Found
) -> None:
    ours = EXPERIMENTS[name].ours(model, pairs, SENDERS, backend="reference", precision="fp64")
    assert_sweep(ours.values, theirs[name], PROMISED["fp64"])


@pytest.mark.parametrize("name", list(EXPERIMENTS))
def test_senders_before_the_receivers_count_and_none_behind(name: str, theirs: Found) -> None:
    """Otherwise agreement would mean little."""
    layers = torch.tensor([int(sender.split(".")[0]) for sender in SENDERS])
    size, last = theirs[name].norm(dim=-1), EXPERIMENTS[name].numbers[:, 0]
    reach = layers < (last.max() if len(last) else 12)
    assert (size[reach] >= 0.01 * size.max()).float().mean() > 0.8
    assert size.max() > 0.01
    assert size[~reach].max() < 1e-9 if (~reach).any() else name == "E1"


def test_a_position_too_early_shows(run: Callable[..., Found], theirs: Found) -> None:
    """By a hundred times what is allowed."""
    senders = [SENDERS[4], SENDERS[9]]
    wrong = run("--dtype=float64", senders=senders, earlier=1)
    rows = [SENDERS.index(sender) for sender in senders]
    for name in EXPERIMENTS:
        with pytest.raises(AssertionError, match="error of the sweep"):
            assert_sweep(wrong[name], theirs[name][rows], 100 * PROMISED["fp32"])
