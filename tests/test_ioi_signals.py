"""Signals about S: six sets of prompts, their linear fit, and where heads get them from."""

from __future__ import annotations

import pytest
import torch
from compare import assert_close

from ioi_fast import load
from ioi_fast.ioi.signals import (
    POSITIONS,
    TOKENS,
    LinearFit,
    SignalTable,
    prefix_shift,
    share_of_drop,
    share_stderr,
    signal_table,
)
from ioi_fast.ioi.variants import longer_prefix_prompts, signal_prompts
from ioi_fast.reference.run import Overwrite, plain_run

HEADS = ["1.6", "0.3", "2.2"]


@pytest.fixture(scope="module")
def model():
    return load("demo")


def patched(model, pairs, role: str) -> torch.Tensor:
    """Logit difference with the heads of new at a role, by the plain run in float64."""
    exact, N = model.to(dtype=torch.float64), len(pairs)
    rows = torch.arange(N)
    source = plain_run(exact, pairs.new, pairs.new_end)
    overwrites: dict = {}
    for layer, head in (map(int, name.split(".")) for name in HEADS):
        where = torch.zeros(*pairs.orig.shape, 8, 1, dtype=torch.bool)
        where[rows, pairs.positions[role], head] = True
        value = torch.zeros(*pairs.orig.shape, 8, 32, dtype=torch.float64)
        own = source.used["z", layer][rows, pairs.new_roles[role], head]
        value[rows, pairs.positions[role], head] = own
        overwrites.setdefault(("z", layer), []).append(Overwrite(where, value))
    logits = plain_run(exact, pairs.orig, pairs.end, overwrites).logits
    return logits[rows, pairs.answers] - logits[rows, pairs.wrong_answers]


@pytest.mark.parametrize("role", ["END", "S2"])
def test_the_table_against_plain_runs(role: str, model) -> None:
    found = signal_table(model, model.tokenizer, HEADS, n=12, seed=3, role=role)
    for row, token in enumerate(TOKENS):
        for column, position in enumerate(POSITIONS):
            pairs = signal_prompts(model.tokenizer, 12, 3, token=token, position=position)
            assert_close(found.values[row, column], patched(model, pairs, role))
    assert_close(found.values[0, 0], found.base.double(), 1e-6)
    assert found.heads == tuple(HEADS) and found.stderr.shape == (3, 2)


def test_a_longer_prefix_against_plain_runs(model) -> None:
    found = prefix_shift(model, model.tokenizer, HEADS, n=12, seed=3)
    pairs = longer_prefix_prompts(model.tokenizer, 12, 3)
    assert_close(found.shifted, patched(model, pairs, "END"))
    change, error = found.change
    assert change == pytest.approx(float((found.shifted - found.base).mean()), abs=1e-5) and error


def table(rows: list, base: float = 3.55) -> SignalTable:
    values = torch.tensor(rows)[..., None].expand(3, 2, 4)
    return SignalTable(("7.3",), "END", values, torch.full((4,), base))


def test_the_fit_of_the_published_table() -> None:
    published = table([[3.55, -0.99], [2.45, -1.96], [1.77, -3.16]])
    assert published.fit.position == pytest.approx(2.313, abs=5e-4)
    assert published.fit.token == pytest.approx(0.988, abs=5e-4)
    assert published.fit.error == pytest.approx(0.078, abs=1e-3)
    assert published.drop(1, 1) == pytest.approx(0) and published.drop(0, 1) == pytest.approx(
        1.1 / 3.55, rel=1e-5
    )


def test_a_fit_of_what_is_linear_is_exact() -> None:
    exact = torch.tensor([[3.0, -1.0], [2.0, -2.0], [1.0, -3.0]], dtype=torch.float64)
    assert LinearFit.of(exact, 3.0) == LinearFit(2.0, 1.0, 0.0)


def test_errors_over_prompts() -> None:
    """Of the fit, which is linear in the values, and of a share: what many draws scatter by."""
    generator = torch.Generator().manual_seed(0)
    mean = torch.tensor([[4.0, 0.4], [3.0, 0.0], [2.0, -2.0]])
    noise = torch.randn(400, 3, 2, 50, generator=generator)
    drawn = [
        SignalTable(("0.0",), "END", mean[..., None] + one, torch.full((50,), 4.0)) for one in noise
    ]
    fits = torch.tensor([[one.fit.position, one.fit.token] for one in drawn])
    said = torch.tensor([one.fit_stderr for one in drawn[:50]]).mean(0)
    assert (said / fits.std(0) - 1).abs().max() < 0.1
    carrier = table([[4.0, 0.0], [3.0, 0.0], [2.0, -2.0]], 4.0)
    wide = SignalTable(("0.0",), "END", carrier.values[..., :1].expand(3, 2, 50), drawn[0].base)
    shares = torch.tensor([share_of_drop(one, wide, 1, -1) for one in drawn])
    errors = torch.tensor([share_stderr(one, wide, 1, -1) for one in drawn[:20]])
    assert errors.mean() == pytest.approx(float(shares.std()), rel=0.1)


def test_shares_of_a_drop() -> None:
    carrier = table([[4.0, 0.0], [3.0, 0.0], [2.0, -2.0]], 4.0)
    origin = table([[4.0, 0.4], [3.9, 0.0], [2.0, -2.0]], 4.0)
    assert share_of_drop(origin, carrier, 1, -1) == pytest.approx(0.9)
    assert share_of_drop(origin, carrier, 0, 1) == pytest.approx(0.1, abs=1e-5)
