"""What a process has set for all of torch changes no bit of a call, which leaves it as it was."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import torch
from small_models import ragged_pairs, tiny_model
from torch import Tensor

from ioi_fast import (
    PromptPairs,
    ablate,
    activation_patch,
    attention,
    explain,
    ioi_prompts,
    load,
    pair_sweep,
    path_patch,
)
from ioi_fast.asked.nodes import Head
from ioi_fast.ioi.attending import attending, writing
from ioi_fast.ioi.behaviour import score
from ioi_fast.ioi.copying import copy_scores
from ioi_fast.ioi.reading import places_read
from ioi_fast.ioi.signals import signal_table
from ioi_fast.kernels.fp32_products import fp32_products


def all_of(backend: str) -> dict[str, Tensor]:
    """What every public call gives, from the making of model and prompts on."""
    how = {"backend": backend}
    model, demo = tiny_model(), load("demo")
    lists = [[3, 4, 5, 6], [7, 8, 9, 10]]
    ends = {"END": [3, 2], "S2": [1, 1]}
    pairs = PromptPairs(lists, [[3, 5, 4, 6], [8, 8, 9, 9]], [1, 2], [3, 4], positions=ends)
    pairs = pairs.swapped().select([1, 0])
    patch = path_patch(model, pairs, metric="kl", **how)
    one = path_patch(model, pairs.select([0]), ["0.1"], metric="prob", **how)
    prompts, more = (ioi_prompts(demo.tokenizer, n=n, seed=n) for n in (3, 40))
    knock = {"0.2": "END"}
    got = {
        "logits": model(pairs.orig),
        "patch": patch.values,
        "effect": patch.effect,
        "stderr": patch.stderr,
        "one": one.stderr,
        "demo": path_patch(demo, prompts, ["1.6", "mlp1"], **how).values,
        "knocked": path_patch(model, pairs, ["0.1"], ["2.1.q"], knock_out=knock, **how).values,
        "each": activation_patch(model, pairs, "resid_pre", "each", metric="rank", **how).values,
        "means": ablate(demo, prompts, [{"4.0": "END"}], mean_pairs=more, **how).values,
        "ablate": ablate(model, pairs, [{"0.1": "all"}, {"mlp0": "END"}], **how).values,
        "pairs": pair_sweep(model, pairs, ["k"], per_prompt=True, **how).values,
        "attention": attention(model, pairs, "heads", **how),
        "after": attention(model, pairs, ["2.1"], after={"senders": ["0.1"]}, **how),
        "folded": model.folded()(pairs.orig),
    }
    if backend == "cpu":
        explain(path_patch, model, pairs)
    return got


@contextmanager
def changed(change: Callable, value: object, before: object) -> Iterator[None]:
    change(value)
    try:
        yield
    finally:
        change(before)


SETTINGS: dict[str, Callable[[], AbstractContextManager]] = {
    "device meta": lambda: changed(torch.set_default_device, "meta", None),
    "device cpu": lambda: changed(torch.set_default_device, "cpu", None),
    "within meta": lambda: torch.device("meta"),
    "float64": lambda: changed(torch.set_default_dtype, torch.float64, torch.float32),
    "bfloat16": lambda: changed(torch.set_default_dtype, torch.bfloat16, torch.float32),
    "medium": lambda: changed(torch.set_float32_matmul_precision, "medium", "highest"),
    "deterministic": lambda: changed(torch.use_deterministic_algorithms, True, False),
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu"),
}


@pytest.fixture(scope="module")
def plain() -> dict[str, dict[str, Tensor]]:
    return {backend: all_of(backend) for backend in ("cpu", "reference")}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_no_setting_changes_a_bit(plain, backend: str, setting: str) -> None:
    with SETTINGS[setting]():
        state = settings()
        got = all_of(backend)
        assert settings() == state
    for name, wanted in plain[backend].items():
        value = got[name]
        assert (value.dtype, value.device) == (wanted.dtype, wanted.device), name
        assert not value.requires_grad, name
        assert torch.equal(value.nan_to_num(9.0), wanted.nan_to_num(9.0)), name


def studied() -> dict[str, object]:
    """What the measurements of the paper give."""
    demo = load("demo")
    prompts = ioi_prompts(demo.tokenizer, n=3, seed=0)
    heads, shape = [Head(4, 0), Head(5, 1)], {"n": 3, "seed": 0}
    scores, written = copy_scores(demo, prompts), writing(demo, prompts, heads)
    return {
        "score": score(demo, prompts),
        "copies": scores.copies,
        "signals": signal_table(demo, demo.tokenizer, heads, **shape).values,
        "attending": attending(demo, prompts, heads).weights,
        "written": written.projection,
        "read": places_read(demo, prompts, heads, "END", prompts.roles),
    }


@pytest.mark.parametrize("setting", [name for name in SETTINGS if "inference" not in name])
def test_no_setting_changes_what_is_studied(setting: str) -> None:
    wanted = studied()
    with SETTINGS[setting]():
        got = studied()
    for name, value in wanted.items():
        if isinstance(value, Tensor):
            assert got[name].dtype == value.dtype and torch.equal(got[name], value), name
        else:
            assert got[name] == value, name


def settings() -> tuple:
    return (
        torch.get_default_device(),
        torch.get_default_dtype(),
        torch.get_float32_matmul_precision(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu"),
    )


def test_precision_is_set_back_by_the_last_of_calls_that_overlap() -> None:
    opened, done = threading.Event(), threading.Event()

    def second() -> None:
        with fp32_products():
            opened.set()
            done.wait(60)

    other = threading.Thread(target=second)
    torch.set_float32_matmul_precision("medium")
    try:
        with fp32_products():
            other.start()
            assert opened.wait(60)
        assert torch.get_float32_matmul_precision() == "highest"
        done.set()
        other.join(60)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def in_new_thread(ask: Callable[[], object]) -> object:
    answers = []
    thread = threading.Thread(target=lambda: answers.append(ask()))
    thread.start()
    thread.join()
    return answers[0]


def test_threads_of_calls_that_overlap_stay_their_own() -> None:
    """Also in threads that begin while they run, and afterwards."""
    model, pairs = tiny_model(), ragged_pairs()
    before = torch.get_num_threads()
    asked, turns, seen = (before + 1, before + 2), threading.Barrier(2, timeout=60), {}

    def call(threads: int) -> None:
        def metric(logits: Tensor, prompt: Tensor) -> Tensor:
            if threads not in seen:
                turns.wait()  # both calls are open
                seen[threads] = torch.get_num_threads(), in_new_thread(torch.get_num_threads)
                turns.wait()
            return logits[:, 0]

        result = path_patch(model, pairs, ["0.0"], metric=metric, threads=threads)
        seen[threads] += result.provenance["threads"], torch.get_num_threads()

    callers = [threading.Thread(target=call, args=[threads]) for threads in asked]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=120)
    assert seen == {threads: (threads, before, threads, before) for threads in asked}
    assert torch.get_num_threads() == in_new_thread(torch.get_num_threads) == before
