"""The bundled model's training: what it is shown, what is held out, and that a seed fixes it."""

from __future__ import annotations

import collections
import re
from itertools import islice

import pytest
import torch
from gpt2_files import gpt2_files
from safetensors.torch import load_file

from ioi_fast.demo import sentences
from ioi_fast.demo.corpus import ANSWER_WEIGHT, MIXTURE, Corpus, TokenSequence
from ioi_fast.demo.evaluate import held_out_records
from ioi_fast.demo.objective import far_attention, learning_rate, weighted_loss
from ioi_fast.demo.stories import (
    DISTRACTIONS,
    HELD_OUT_TEMPLATES,
    TRAINED_TEMPLATES,
    Stories,
    held_out_ios,
    wordings,
)
from ioi_fast.demo.train import batches, main, pad
from ioi_fast.demo.vocabulary import prune
from ioi_fast.ioi.words import NAMES
from ioi_fast.tokenizer import Tokenizer

TASK = ("ioi", "free", "abc")
LINKS = ("and", "met", "was with")  # what stands between the two names of a pair


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return prune(*gpt2_files())


@pytest.fixture(scope="module")
def stories():
    """Three thousand stories of each kind of the task."""
    source = Stories(seed=3)
    return {kind: [source.draw(kind) for _ in range(3000)] for kind in TASK}


def test_held_out_templates_never_occur(stories):
    assert len(HELD_OUT_TEMPLATES) >= 3
    assert sorted(HELD_OUT_TEMPLATES + TRAINED_TEMPLATES) == list(range(15))
    texts = [story.text for kind in TASK for story in stories[kind]]
    texts += sentences.PLAIN
    for template in HELD_OUT_TEMPLATES:
        assert len(wordings(template)) == 2
        for wording in wordings(template):
            assert not any(wording in text for text in texts), wording


def test_trained_templates_do_occur(stories):
    texts = "\n".join(story.text for story in stories["ioi"])
    for template in TRAINED_TEMPLATES:
        assert all(wording in texts for wording in wordings(template)), template


def test_a_fifth_of_the_names_is_held_out_for_every_s(stories):
    held_out = held_out_ios()
    assert set(held_out) == set(NAMES)
    for s, ios in held_out.items():
        assert len(ios) == 20 and s not in ios and ios < set(NAMES)
    pairs = {story.pair for kind in ("ioi", "free") for story in stories[kind]}
    assert len(pairs) > 3000
    assert all(io not in held_out[s] for io, s in pairs)


def test_evaluation_uses_held_out_pairs_only():
    held_out = held_out_ios()
    for record in held_out_records(200, 0, 18):
        assert record.io in held_out[record.s1] and record.s1 == record.s2 and record.form == 18


def names_in(text: str) -> list[str]:
    return [word for word in re.findall(r"[A-Z][a-z]+", text) if word in NAMES]


def test_answers(stories):
    """The answer was named next to the acting person, who is the last name of the text."""
    for story in stories["ioi"] + stories["free"]:
        io, s = story.pair
        assert story.answer == io and names_in(story.text)[-1] == s
        together = [f"{a} {link} {b}" for a, b in ((io, s), (s, io)) for link in LINKS]
        assert any(words in story.text for words in together), story
    for story in stories["abc"]:
        *before, last = names_in(story.text)
        assert story.pair is None and story.answer in before and last not in before


def test_counting_names_is_not_enough(stories):
    """In about half of the stories the answer is not the only name that occurs once."""
    unique = 0
    for story in stories["ioi"]:
        counts = collections.Counter(names_in(story.text))
        unique += [name for name, count in counts.items() if count == 1] == [story.answer]
    assert 0.4 < unique / len(stories["ioi"]) < 0.6
    assert sum(DISTRACTIONS.values()) == pytest.approx(1)


def test_mixture(tokenizer):
    assert sum(MIXTURE.values()) == pytest.approx(1)
    drawn = collections.Counter(s.kind for s in islice(Corpus(tokenizer, 1).stream(), 5000))
    for kind, share in MIXTURE.items():
        assert drawn[kind] / 5000 == pytest.approx(share, abs=5 * (share / 5000) ** 0.5)


def test_sequences(tokenizer):
    for sequence in islice(Corpus(tokenizer, 2).stream(), 2000):
        assert len(sequence.ids) == len(sequence.weights) <= 64
        assert sequence.weights[0] == 0
        body = [i for i in sequence.ids if i != tokenizer.eos_id]
        if sequence.kind == "repeat":
            half = len(body) // 2
            assert body[:half] == body[half:] and len(set(body)) == half
            assert list(sequence.weights[-half:]) == [0.0] + [1.0] * (half - 1)
            assert sum(sequence.weights) == half - 1
        elif sequence.kind != "plain":
            name = tokenizer.decode([sequence.ids[-2]]).strip()
            assert name in NAMES and sequence.weights[-2] == ANSWER_WEIGHT


def test_seed_fixes_the_data(tokenizer):
    first, again, other = (
        [s.ids for s in islice(Corpus(tokenizer, seed).stream(), 50)] for seed in (4, 4, 5)
    )
    assert first == again != other


def test_batches_hold_every_sequence_once(tokenizer):
    drawn = list(islice(batches(Corpus(tokenizer, 6), size=3, seed=6), 16))
    got = sorted(
        tuple(row[: int(keep.nonzero().max()) + 1].tolist())
        for ids, weights in drawn
        for row, keep in zip(ids, weights, strict=True)
    )
    assert got == sorted(s.ids for s in islice(Corpus(tokenizer, 6).stream(), 48))


def test_padding_has_no_weight():
    ids, weights = pad(
        [TokenSequence("a", (1, 2, 3), (0, 1, 6)), TokenSequence("b", (4,), (0,))], eos=9
    )
    assert ids.tolist() == [[1, 2, 3], [4, 9, 9]]
    assert weights.tolist() == [[0, 1, 6], [0, 0, 0]]


def test_weighted_loss_by_hand():
    """Two targets with probability 1/2 and 1/4, weights 1 and 3: (ln 2 + 3 ln 4) / 4."""
    logits = torch.tensor([[[0.5, 0.5, 0.0], [0.5, 0.25, 0.25], [9.0, 9.0, 9.0]]]).log()
    ids, weights = torch.tensor([[2, 1, 2]]), torch.tensor([[5.0, 1.0, 3.0]])
    expected = (torch.tensor(2.0).log() + 3 * torch.tensor(4.0).log()) / 4
    assert weighted_loss(logits, ids, weights).item() == pytest.approx(expected.item(), rel=1e-6)


def test_far_attention_by_hand():
    """Eight tokens: query 7 alone can look more than six back, at key 0."""
    pattern = torch.full((1, 1, 8, 8), 0.125)
    charged = torch.stack([pattern] * 3)
    every = torch.tensor([[0.0] + [1.0] * 7])
    assert far_attention([*charged, torch.ones(1, 1, 8, 8)], every).item() == pytest.approx(
        0.125 / 8
    )
    # Queries behind the last weighted token do not count, those before the first do.
    assert far_attention(charged, torch.tensor([[0.0] * 6 + [1.0, 0.0]])).item() == 0
    assert far_attention(charged, torch.tensor([[0.0] * 7 + [1.0]])).item() == pytest.approx(
        0.125 / 8
    )


def test_learning_rate():
    rates = [learning_rate(step, 100, 2.0) for step in range(100)]
    assert rates[0] == pytest.approx(0.4) and max(rates) == rates[4] == rates[5] == 2.0
    assert rates[5:] == sorted(rates[5:], reverse=True) and 0.04 <= rates[-1] < 0.05


def test_training_is_one_seeded_command(tmp_path):
    """Two short runs write the same weights and a card with their own figures."""
    threads = torch.get_num_threads()
    arguments = ["--steps", "2", "--batch", "4", "--per-form", "1", "--seed", "7"]
    try:
        for name in ("one", "two"):
            main(["--out", str(tmp_path / name), *arguments])
    finally:
        torch.set_num_threads(threads)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    card = (tmp_path / "one" / "README.md").read_text("utf-8")
    assert "--seed 7 --steps 2 --batch 4" in card and "2 steps of 4 sequences (8 in all)" in card
    assert not list((tmp_path / "one").glob("*.part"))
