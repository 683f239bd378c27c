"""What is read of heads: attention to roles, writing, copying, repeated tokens; against plain loops
over the reference run in float64, and on heads that are made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from compare import assert_close
from small_models import ragged_pairs, tiny_model

from ioi_fast import GPT2, GPT2Config, PromptPairs, attention
from ioi_fast.asked.nodes import Head
from ioi_fast.ioi.attending import Writing, attending, writing
from ioi_fast.ioi.copying import copy_scores
from ioi_fast.ioi.repeats import repeat_scores, repeated_tokens
from ioi_fast.kernels import reference
from ioi_fast.model.layers import mlp
from ioi_fast.reference.run import plain_run

ROLES = ("IO", "S1", "S2")


@pytest.fixture(scope="module")
def model() -> GPT2:
    return tiny_model()


@pytest.fixture(scope="module")
def pairs() -> PromptPairs:
    """Roles of names, and answers that are the tokens there."""
    drawn = ragged_pairs(50, T=9)
    rows = torch.arange(len(drawn))
    at = {"IO": torch.ones(50).long(), "S1": torch.full((50,), 3), "S2": torch.full((50,), 5)}
    at["END"] = drawn.end
    answers = (drawn.orig[rows, at["IO"]], drawn.orig[rows, at["S1"]])
    return PromptPairs(drawn.orig, drawn.new, *answers, positions=at, forms=drawn.forms)


def folded_run(model: GPT2, tokens: torch.Tensor):
    """The folded model in float64, and its run to the last token."""
    exact = model.to(dtype=torch.float64).folded()
    return exact, plain_run(exact, tokens, torch.full((len(tokens),), tokens.shape[1] - 1))


def test_attention_to_roles(model, pairs) -> None:
    heads = ["0.1", "2.2"]
    for run in ("orig", "new"):
        found = attending(model, pairs, heads, query="S2", run=run)
        patterns = attention(model, pairs, heads, run=run)
        for n in range(len(pairs)):
            for role, at in pairs.positions.items():
                own = patterns[:, n, 5, at[n]]
                assert torch.equal(found.weights[:, found.roles.index(role), n], own)
    assert found.heads == (Head(0, 1), Head(2, 2)) and found.stderr.shape == (2, 4)
    mean = found.weights[:, found.roles.index("IO")].mean(-1)
    assert_close(found.mean("IO"), mean.double(), 1e-6)
    after = {"senders": ["0.0"], "receivers": ["2.2.q"]}
    moved = attending(model, pairs, ["2.2"], after=after).weights
    assert not torch.allclose(moved, attending(model, pairs, ["2.2"]).weights, atol=1e-4)
    with pytest.raises(ValueError, match="query must be one of IO, S1, S2, END, got 'S3'"):
        attending(model, pairs, heads, query="S3")


def test_writing_against_a_plain_loop(model, pairs) -> None:
    heads = ["2.1", "0.0", "1.2"]
    found = writing(model, pairs, heads)
    exact, run = folded_run(model, pairs.orig)
    for row, head in enumerate(map(Head.parse, heads)):
        w_o = exact.weights.blocks[head.layer].w_o.unflatten(0, (3, -1))[head.head]
        for n, end in enumerate(pairs.end.tolist()):
            written = run.used["z", head.layer][n, end, head.head] @ w_o
            weight = run.used["pattern", head.layer][n, head.head, end]
            for point, ids, at in (
                (n, pairs.answers, ("IO",)),
                (len(pairs) + n, pairs.wrong_answers, ("S1", "S2")),
            ):
                given = sum(weight[pairs.positions[role][n]] for role in at)
                assert found.probability[row, point] == pytest.approx(float(given), abs=1e-6)
                product = written @ exact.weights.unembed[ids[n]]
                assert found.projection[row, point] == pytest.approx(float(product), abs=1e-4)
        points = torch.stack([found.probability[row], found.projection[row]])
        assert_close(found.correlation[row], torch.corrcoef(points)[0, 1].double(), 1e-5)


def test_writing_needs_names(model, pairs) -> None:
    few = PromptPairs(pairs.orig, pairs.new, [1] * 50, [2] * 50, positions={"END": pairs.end})
    with pytest.raises(ValueError, match="roles IO, S1 and S2, got no IO"):
        writing(model, few, ["0.0"])
    for heads in ([], ["mlp0"]):
        with pytest.raises(ValueError, match=r"heads must be heads like '9\.9'"):
            writing(model, pairs, heads)


@pytest.mark.parametrize("context", ["block0", "free"])
def test_copy_scores_against_a_plain_loop(context: str, model, pairs) -> None:
    found = copy_scores(model, pairs, top=9, context=context)
    exact, run = folded_run(model, pairs.orig)
    weights, rows = exact.weights, torch.arange(len(pairs))
    if context == "block0":
        resid = run.used["resid_pre", 1]
        x = torch.cat([resid[rows, pairs.positions[role]] for role in ROLES])
        tokens = torch.cat([pairs.orig[rows, pairs.positions[role]] for role in ROLES])
    else:
        tokens = torch.cat([pairs.orig[rows, pairs.positions[role]] for role in ROLES]).unique()
        x = weights.wte[tokens]
        x = x + mlp(x, weights.blocks[0], exact.config)
    one, none = torch.ones(24).double(), torch.zeros(24).double()
    normed = reference.layernorm(x, one, none, 1e-5)
    assert found.names == len(tokens) == (150 if context == "block0" else found.names)
    for layer, block in enumerate(weights.blocks):
        for head in range(3):
            columns = slice(48 + 8 * head, 56 + 8 * head)
            bias = block.b_qkv[columns] if context == "block0" else 0
            value = normed @ block.w_qkv[:, columns] + bias
            written = value @ block.w_o[8 * head : 8 * head + 8]
            for sign, share in ((1, found.copies), (-1, found.negative)):
                final = reference.layernorm(
                    sign * written, weights.ln_f_gain, weights.ln_f_bias, 1e-5
                )
                best = (final @ weights.unembed.T).topk(9).indices
                hits = (best == tokens[:, None]).any(1).double().mean()
                assert share[layer, head] == pytest.approx(float(hits), abs=1e-6)


def copying_model() -> GPT2:
    """Head 1.0 writes what it reads, 1.1 the opposite; nothing else says anything."""
    config = GPT2Config(n_layer=2, n_head=2, n_embd=32, vocab_size=40, n_positions=16, n_inner=8)
    model = GPT2.random(config, seed=0)
    mute = replace(
        model.weights.blocks[0],
        w_o=torch.zeros(32, 32),
        w_out=torch.zeros(8, 32),
        b_o=torch.zeros(32),
        b_out=torch.zeros(32),
    )
    basis = torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(1)))[0]
    w_qkv, b_qkv = model.weights.blocks[1].w_qkv.clone(), torch.zeros(96)
    w_qkv[:, 64:] = torch.cat([basis[:, :16], basis[:, :16]], 1)
    w_o = torch.cat([basis[:, :16].T, -basis[:, :16].T])
    one = torch.ones(32)
    block = replace(
        model.weights.blocks[1], w_qkv=w_qkv, b_qkv=b_qkv, w_o=w_o, ln_1_gain=one, ln_1_bias=0 * one
    )
    weights = replace(
        model.weights,
        blocks=(mute, block),
        wpe=torch.zeros(16, 32),
        ln_f_gain=one,
        ln_f_bias=0 * one,
    )
    return GPT2(config, weights, name="copying")


@pytest.mark.parametrize("context", ["block0", "free"])
def test_a_head_that_copies(context: str) -> None:
    pairs = ragged_pairs(30, vocab_size=40)
    found = copy_scores(copying_model(), pairs, roles=["S1", "S2"], context=context)
    assert found.copies[1, 0] > 0.95 and found.negative[1, 0] < 0.05
    assert found.copies[1, 1] < 0.05 and found.negative[1, 1] > 0.95


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"roles": ["IO", "S9"]}, "roles must be of IO, S1, S2, END"),
        ({"roles": []}, "roles must be of"),
        ({"top": 0}, "top must be from 1 to 53, got 0"),
        ({"context": "all"}, "context must be 'block0' or 'free'"),
    ],
)
def test_copy_score_arguments(wrong: dict, message: str, model, pairs) -> None:
    with pytest.raises(ValueError, match=message):
        copy_scores(model, pairs, **wrong)


@pytest.mark.parametrize("diagonal", ["exact", "code"])
def test_repeat_scores_against_a_plain_loop(diagonal: str, model) -> None:
    tokens, X = repeated_tokens(model, sequences=70, length=7), 7
    found = repeat_scores(model, tokens, diagonal)
    exact, run = folded_run(model, tokens)
    for layer, block in enumerate(exact.weights.blocks):
        pattern, z = run.used["pattern", layer], run.used["z", layer]
        for head in range(3):
            own = pattern[:, head]
            back = [own[:, t, t - 1] for t in range(1, 2 * X)]
            same = [own[:, t, t - X] for t in range(X, 2 * X)]
            first = X if diagonal == "exact" else X - 1
            behind = [own[:, t, t - X + 1] for t in range(first, 2 * X)]
            written = z[:, X:, head] @ block.w_o[8 * head : 8 * head + 8]
            directions = exact.weights.unembed[tokens[:, 1 : X + 1]]
            for name, entries in (
                ("previous", torch.stack(back)),
                ("duplicate", torch.stack(same)),
                ("induction", torch.stack(behind)),
                ("copying", (written * directions).sum(-1)),
            ):
                truth = float(entries.mean())
                assert float(getattr(found, name)[layer, head]) == pytest.approx(truth, abs=1e-5)
    order = found.ranking("previous")
    assert found.previous[order[0].layer, order[0].head] == found.previous.max()
    assert len(order) == 9 == len(set(order))
    furthest = found.ranking("copying")[0]
    assert found.copying[furthest.layer, furthest.head].abs() == found.copying.abs().max()


def test_repeated_tokens(model) -> None:
    tokens = repeated_tokens(model, 3, 5, seed=2, ids=(10, 13))
    assert tokens.shape == (3, 10) and torch.equal(tokens[:, :5], tokens[:, 5:])
    assert set(tokens.unique().tolist()) <= {10, 11, 12}
    assert torch.equal(tokens, repeated_tokens(model, 3, 5, seed=2, ids=(10, 13)))
    for wrong, message in (
        ({"length": 9}, "length must be from 2 to 8"),
        ({"sequences": 0}, "sequences must be at least 1"),
        ({"ids": (5, 5)}, "ids must be within 0 and 53"),
        ({"ids": (0, 54)}, "ids must be within 0 and 53"),
    ):
        with pytest.raises(ValueError, match=message):
            repeated_tokens(model, **{"length": 4, **wrong})
    with pytest.raises(ValueError, match="two equal halves"):
        repeat_scores(model, torch.arange(6)[None])
    with pytest.raises(ValueError, match="diagonal must be 'exact' or 'code'"):
        repeat_scores(model, tokens, "whole")


def test_the_error_of_a_correlation_is_what_draws_of_prompts_scatter_by() -> None:
    """Points of a prompt hang together: its error is not that of twice as many prompts."""
    generator = torch.Generator().manual_seed(0)
    found, errors = [], []
    for _ in range(200):
        own = torch.randn(1, 40, generator=generator)
        noise = 0.7 * torch.randn(1, 40, generator=generator)
        one = Writing((Head(0, 0),), torch.cat([own, own], 1), torch.cat([own + noise] * 2, 1))
        found.append(one.correlation)
        errors.append(one.stderr(draws=100))
    assert torch.stack(errors).mean() == pytest.approx(float(torch.stack(found).std()), rel=0.2)
