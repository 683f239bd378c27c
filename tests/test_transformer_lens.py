"""Path patching with nothing in between against TransformerLens 4.3's direct-path sweep.

The same paths in other words. Its base is the corrupted run and the clean one is patched in
(denoising), so ours are swapped pairs. It adds the sender's clean − corrupted write (z @ W_O) at
every position to what the LayerNorm of one head's q, k or v reads and recomputes all that follows;
ours overwrites that q, k or v by what it then becomes. It reports the metric, not its change, and
where the receiver is in no later layer it fills in zeros that mean nothing; ours are effects of 0.
The script runs it on one prompt at a time, without padding; ours run as one ragged batch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch
from checkpoints import lively_model, write
from compare import assert_close, assert_sweep
from small_models import ragged_pairs
from torch import Tensor

from ioi_fast import PromptPairs, Result, load, path_patch
from ioi_fast.benchmarks import peer_environment
from ioi_fast.results.promised_accuracy import PROMISED

HERE = Path(__file__).parent / "instruments"
L, H, N = 4, 3, 5
INPUTS = ("q", "k", "v")
READS = (*INPUTS, "logits")

# How TransformerLens runs: with the weights of the file, or as its compatibility mode rewrites them
# (LayerNorm gains and b_V folded into what follows, writing weights and unembedding centred), which
# leaves every logit difference as it is.
FILE_FP64 = ("--dtype", "float64")
PROCESSED_FP64 = ("--dtype", "float64", "--process-weights")
PROCESSED_FP32 = ("--dtype", "float32", "--process-weights")

# Both sides in float64 but for our values, which are stored as float32 (rounding 6e-8).
EXACT = 1e-6
# Weights are rewritten in float32 even in a float64 model, and so a few 1e-6 off.
REWRITTEN = 5e-5
# In float32 both sides subtract whole runs: the error is that of logits of size 5 (1e-5 at most),
# however small the effect, so it is held against the largest effect only.
SUBTRACTED = 1e-4

# The environment is built inside the first test, which may have to download torch.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

Sweep = Callable[[tuple[str, ...]], dict[str, Tensor]]


@pytest.fixture(scope="module")
def pairs() -> PromptPairs:
    """Ragged prompts, with the corrupted ones as orig and the clean ones patched in."""
    clean_is_orig = ragged_pairs(N, T=9, vocab_size=61, seed=3)
    return clean_is_orig.swapped()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("checkpoint"), lively_model(3, n_layer=L, n_head=H))


@pytest.fixture(scope="module")
def theirs(checkpoint: Path, pairs: PromptPairs, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """TransformerLens' change of the metric by input, [L, H, L, H, N], logits [L, H, N]; base."""
    try:
        python = peer_environment.python_of(peer_environment.requirements("transformer_lens_4"))
    except peer_environment.NoPackageIndex as reason:
        pytest.skip(str(reason))
    folder = tmp_path_factory.mktemp("sweeps")
    columns = {
        "clean": pairs.new,
        "corrupted": pairs.orig,
        "end": pairs.end,
        "answers": pairs.answers,
        "wrong_answers": pairs.wrong_answers,
    }
    prompts = folder / "prompts.npz"
    numpy.savez(prompts, **{name: column.numpy() for name, column in columns.items()})
    done: dict[tuple[str, ...], dict[str, Tensor]] = {}

    def sweep(settings: tuple[str, ...]) -> dict[str, Tensor]:
        if settings not in done:
            output = folder / f"{len(done)}.npz"
            script = HERE / "transformer_lens_sweep.py"
            files = (checkpoint, prompts, output)
            peer_environment.run_script(python, script, *files, *settings, folder=folder)
            done[settings] = changes(output)
        return done[settings]

    return sweep


def changes(output: Path) -> dict[str, Tensor]:
    """What the script found, as changes, with 0 for receivers that are not in a later layer."""
    with numpy.load(output) as file:
        assert str(file["version"]).startswith("4.3.")
        found = {name: torch.from_numpy(file[name]) for name in (*READS, "base")}
    assert found["q"].shape == (L, H, L, H, N) and found["logits"].shape == (L, H, N)
    later = torch.arange(L)[:, None] < torch.arange(L)
    for name in INPUTS:
        change = found[name] - found["base"]
        found[name] = torch.where(later[:, None, :, None, None], change, 0)
    found["logits"] -= found["base"]
    return found


@pytest.fixture(scope="module")
def ours(checkpoint: Path, pairs: PromptPairs) -> Callable[..., Tensor]:
    """Our values for every head and input in the same shape; any argument of path_patch."""
    model = load(checkpoint)

    def run(receivers: object, **settings: object) -> Result:
        chosen = {"position": None, "between": "nothing", "precision": "fp64", "pairs": pairs}
        chosen |= {"backend": "reference"} | settings
        return path_patch(model, senders="heads", receivers=receivers, **chosen)

    def values(name: str, **settings: object) -> Tensor:
        if name == "base":
            return run("logits", **settings).base
        if name == "logits":
            return run(name, **settings).values.view(L, H, N)
        heads = [f"{layer}.{head}" for layer in range(L) for head in range(H)]
        by_receiver = [run([f"{head}.{name}"], **settings).values for head in heads]
        return torch.stack(by_receiver, 1).view(L, H, L, H, N)

    return values


@pytest.mark.parametrize("name", READS)
def test_every_path_in_float64(theirs: Sweep, ours: Callable[..., Tensor], name: str) -> None:
    assert_sweep(ours(name), theirs(FILE_FP64)[name], EXACT)
    assert_close(ours("base"), theirs(FILE_FP64)["base"], EXACT, "base")


@pytest.mark.parametrize("name", READS)
def test_processed_weights_mean_the_same(
    theirs: Sweep, ours: Callable[..., Tensor], name: str
) -> None:
    assert_sweep(ours(name), theirs(PROCESSED_FP64)[name], REWRITTEN)


@pytest.mark.filterwarnings("ignore:ioi_fast runs the reference backend")
@pytest.mark.parametrize("settings", [FILE_FP64, PROCESSED_FP32], ids=" ".join)
@pytest.mark.parametrize("name", READS)
def test_every_path_in_float32(
    theirs: Sweep, ours: Callable[..., Tensor], name: str, settings: tuple[str, ...]
) -> None:
    """What a caller gets who names no backend."""
    values = ours(name, precision="fp32", backend="auto")
    assert_close(values, theirs(settings)[name], SUBTRACTED, name)


def test_fast_path_to_the_logits(theirs: Sweep, ours: Callable[..., Tensor]) -> None:
    """Carried as differences, small effects keep their digits: the error of every sender counts."""
    values = ours("logits", precision="fp32", backend="cpu")
    assert_sweep(values, theirs(FILE_FP64)["logits"], PROMISED["fp32"])


@pytest.mark.parametrize("name", READS)
def test_most_paths_carry_something(theirs: Sweep, name: str) -> None:
    """Otherwise agreement would mean little."""
    size = theirs(FILE_FP64)[name].norm(dim=-1)
    reachable = size[size > 0]
    assert len(reachable) == (L * H if name == "logits" else H * H * L * (L - 1) // 2)
    assert (reachable >= 0.01 * size.max()).float().mean() > 0.8
    assert float(size.max()) > 0.5


FAULTS = {
    "another input": lambda ours, name, pairs: ours(INPUTS[INPUTS.index(name) - 1]),
    "MLPs recomputed": lambda ours, name, pairs: ours(name, between="mlps"),
    "END alone": lambda ours, name, pairs: ours(name, position="END"),
    "noising": lambda ours, name, pairs: ours(name, pairs=pairs.swapped()),
    "sender and receiver": lambda ours, name, pairs: ours(name).permute(2, 3, 0, 1, 4),
    "heads in another order": lambda ours, name, pairs: ours(name).roll(1, dims=1),
    "prompts in another order": lambda ours, name, pairs: ours(name).roll(1, dims=-1),
}


@pytest.mark.parametrize("fault", list(FAULTS))
@pytest.mark.parametrize("name", INPUTS)
def test_a_planted_fault_shows(
    theirs: Sweep, ours: Callable[..., Tensor], pairs: PromptPairs, name: str, fault: str
) -> None:
    """By a hundred times the loosest tolerance."""
    wrong = FAULTS[fault](ours, name, pairs)
    with pytest.raises(AssertionError, match="error"):
        assert_close(wrong, theirs(FILE_FP64)[name], 100 * SUBTRACTED)
