"""Peer libraries in processes of their own, on the same weights and prompts."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy
import pytest
import torch

from ioi_fast import GPT2, PromptPairs
from ioi_fast.benchmarks.peer_environment import NoPackageIndex, python_of, requirements
from ioi_fast.benchmarks.transformers_model import as_transformers

HERE = Path(__file__).parent
# By the name of the environment. TransformerLens 3.9 is the last version with HookedTransformer,
# 4.3 has the direct-path sweep.
WORKERS = {
    "transformer_lens_3": HERE / "lens_worker.py",
    "transformer_lens_4": HERE / "lens4_worker.py",
    "nnsight": HERE / "nnsight_worker.py",
}


class PeerProcess:
    """A running worker; answers are dicts."""

    def __init__(self, process: subprocess.Popen, folder: Path) -> None:
        self._process, self.folder = process, folder

    def ask(self, do: str, **request: object) -> dict:
        """One request and its answer; raises RuntimeError when the worker has died."""
        self._process.stdin.write(json.dumps({"do": do, **request}) + "\n")
        self._process.stdin.flush()
        return self.answer()

    def answer(self) -> dict:
        """The next line of the worker."""
        line = self._process.stdout.readline()
        if not line:
            status, log = self._process.wait(), (self.folder / "log").read_text()
            raise RuntimeError(f"the peer ended with status {status}:\n{log[-2000:]}")
        return json.loads(line)

    def seconds(self, passes: int) -> float:
        """Seconds of so many full passes with logits, without hooks and caches."""
        return self.ask("passes", count=passes)["seconds"]


@contextmanager
def peer_process(
    model: GPT2, pairs: PromptPairs, name: str = "transformer_lens_3"
) -> Iterator[PeerProcess]:
    """Starts the worker on a model and prompts, with as many threads as this process has.

    Skips the benchmark when its environment can't be built for want of a package index.
    """
    try:
        python = python_of(requirements(name))
    except NoPackageIndex as reason:
        pytest.skip(str(reason))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        as_transformers(model).save_pretrained(folder / "model")
        columns = ("orig", "new", "end", "answers", "wrong_answers")
        numpy.savez(folder / "prompts.npz", **{c: getattr(pairs, c).numpy() for c in columns})
        threads = str(torch.get_num_threads())
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": temporary}
        environment |= {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        command = [python, "-I", WORKERS[name], folder / "model", folder / "prompts.npz"]
        with subprocess.Popen(
            list(map(str, command)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / "log").open("w"),
            text=True,
            env=environment,
        ) as process:
            worker = PeerProcess(process, folder)
            try:
                assert worker.answer()["threads"] == int(threads)
                yield worker
            finally:
                process.kill()
