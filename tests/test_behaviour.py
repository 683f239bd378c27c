"""Scores of a model on prompts, and with sentences that say one of the names once more."""

from __future__ import annotations

import pytest
import torch

from ioi_fast import ioi_prompts, load
from ioi_fast.ioi.behaviour import adversarial, end_logits, score
from ioi_fast.ioi.variants import adversarial_prompts


@pytest.fixture(scope="module")
def model():
    return load("demo")


def test_scores_prompt_by_prompt(model) -> None:
    pairs = ioi_prompts(model.tokenizer, n=7, seed=2)
    found, differences, probabilities = score(model, pairs), [], []
    for n in range(len(pairs)):
        logits = model(pairs.orig[n : n + 1, : int(pairs.end[n]) + 1])[0, -1].double()
        answer, wrong = int(pairs.answers[n]), int(pairs.wrong_answers[n])
        differences.append(float(logits[answer] - logits[wrong]))
        probabilities.append(float(logits.softmax(-1)[answer]))
    assert found.logit_diff == pytest.approx(sum(differences) / 7, rel=1e-5)
    assert found.probability == pytest.approx(sum(probabilities) / 7, rel=1e-4)
    assert found.accuracy == pytest.approx(sum(d > 0 for d in differences) / 7)
    spread = torch.tensor(differences).std() / 7**0.5
    assert found.stderr == pytest.approx(float(spread), rel=1e-4)
    assert end_logits(model, pairs, batch=3).shape == (7, model.config.vocab_size)


@pytest.mark.parametrize("sentences", [1, 2])
def test_adversarial_scores(sentences: int, model) -> None:
    found = adversarial(model, model.tokenizer, n=40, seed=1, sentences=sentences)
    assert list(found) == ["plain", "S", "IO"]
    for name in ("S", "IO"):
        how = {"insert": name, "sentences": sentences}
        pairs = adversarial_prompts(model.tokenizer, 40, 1, **how)
        assert found[name] == score(model, pairs)
        assert bool((pairs.end > ioi_prompts(model.tokenizer, 40, 1).end).all())
    assert found["plain"] == score(model, ioi_prompts(model.tokenizer, 40, 1))
    assert found["IO"] != found["plain"] != found["S"]


def test_logits_that_are_not_finite_are_refused(model) -> None:
    pairs = ioi_prompts(model.tokenizer, n=3)
    with pytest.raises(ValueError, match="logits that are not finite"):
        score(lambda tokens: model(tokens) * torch.nan, pairs)
