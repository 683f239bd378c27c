"""IOI prompts against the published table under GPT-2's vocabulary, and what derives from them."""

from __future__ import annotations

import collections
from dataclasses import replace

import pytest
import torch
from gpt2_files import gpt2_tokenizer

from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.ioi.dataset import ROLES, ioi_prompts, pair_records, tokenize_record
from ioi_fast.ioi.records import IOIPrompt, check_forms, sample_records
from ioi_fast.ioi.templates import FORM_SETS, INSERTIONS, TEMPLATES, form_name
from ioi_fast.ioi.variants import adversarial_prompts, longer_prefix_prompts, signal_prompts
from ioi_fast.ioi.words import NAMES, OBJECTS, PLACES
from ioi_fast.tokenizer import Tokenizer, single_token

# (L, f, S2, END) of each template: tokens with the answer, first name, second subject, last token.
TABLE = [
    (16, 2, 10, 14),
    (20, 2, 14, 18),
    (19, 2, 11, 17),
    (21, 2, 13, 19),
    (16, 2, 12, 14),
    (15, 1, 9, 13),
    (18, 1, 11, 16),
    (19, 1, 11, 17),
    (16, 1, 10, 14),
    (16, 1, 10, 14),
    (18, 4, 12, 16),
    (17, 3, 11, 15),
    (15, 2, 11, 13),
    (16, 2, 11, 14),
    (16, 1, 11, 14),
]
# What joins the clauses, token by token, and the opener.
JOINS = {i: [","] for i in range(5, 10)}
JOINS |= {4: [",", " and", " afterwards"], 12: [".", " Afterwards"]}
OPENERS = ["Then,"] * 5 + ["After", "When", "When", "While", "While", "After the lunch,"]
OPENERS += ["Afterwards,", "Then,", "The store", "Friends"]
# Which templates name a place and an object.
HAS_PLACE = [True] * 4 + [False] + [True] * 7 + [False, True, True]
HAS_OBJECT = [True] * 4 + [False] + [True] * 7 + [False, True, True]


def record(template: int, abba: bool, **changes) -> IOIPrompt:
    """Mary is IO and John is S, at the store, with a ring."""
    found = IOIPrompt(template, abba, "Mary", "John", "John", "store", "ring")
    return replace(found, **changes)


@pytest.mark.parametrize("abba", [False, True])
@pytest.mark.parametrize("template", range(15))
def test_published_table(template, abba):
    tokenizer = gpt2_tokenizer()
    length, first, s2, end = TABLE[template]
    ids, at = tokenize_record(tokenizer, record(template, abba))
    words = [tokenizer.decode([i]) for i in ids]
    assert len(ids) + 1 == length and at["END"] == end == length - 2
    assert (at["IO"], at["S1"]) == ((first, first + 2) if abba else (first + 2, first))
    assert at["S2"] == s2 and at["S1+1"] == at["S1"] + 1
    assert words[first + 1] == " and" and words[end] == " to"
    assert [words[at[role]] for role in ("IO", "S1", "S2")] == [" Mary", " John", " John"]
    join = JOINS.get(template, ["."])
    assert words[s2 - len(join) : s2] == join
    assert "".join(words[:first]) == OPENERS[template]
    # No other punctuation than the opener's comma and the join.
    assert not set(words[first : s2 - len(join)] + words[s2:]) & {",", ".", ";", "!"}
    assert (" store" in words) == HAS_PLACE[template]
    assert (" ring" in words) == HAS_OBJECT[template]


@pytest.mark.parametrize("template", range(15))
def test_counts_hold_for_every_word(template):
    tokenizer = gpt2_tokenizer()
    expected = tokenize_record(tokenizer, record(template, True))[1]
    others = [{"io": name, "s1": "Will", "s2": name} for name in NAMES]
    others += [{"place": place} for place in PLACES] + [{"object": thing} for thing in OBJECTS]
    for change in others:
        assert tokenize_record(tokenizer, record(template, True, **change))[1] == expected, change


def test_word_lists():
    assert (len(set(NAMES)), len(set(PLACES)), len(set(OBJECTS))) == (99, 8, 8)
    assert (len(NAMES), len(PLACES), len(OBJECTS)) == (99, 8, 8)
    for word in (*NAMES, *PLACES, *OBJECTS):
        single_token(gpt2_tokenizer(), f" {word}", "word")


def test_wording_is_distinct_and_positions_roles_form():
    texts = [record(template, abba).text for template in range(15) for abba in (False, True)]
    assert len(set(texts)) == 30
    assert [record(i, abba).form for abba in (False, True) for i in range(15)] == [*range(30)]
    assert form_name(3) == "BABA 3" and form_name(18) == "ABBA 3"
    with pytest.raises(ValueError, match="form must be in 0-29, got 30"):
        form_name(30)


MEANS = {"mixed14": (17.86, 15.86, 1.71, 11.43), "all30": (17.2, 15.2, 1.8, 11.13)}


@pytest.mark.parametrize("forms", MEANS)
def test_published_means(forms):
    """One prompt of each form has the published means of L, END, first name and S2."""
    records = [sample_records(1, 0, [form])[0] for form in FORM_SETS[forms]]
    pairs = pair_records(gpt2_tokenizer(), records, records)
    first = torch.minimum(pairs.positions["IO"], pairs.positions["S1"])
    found = [at.double().mean().item() for at in (pairs.end + 2, pairs.end, first)]
    found.append(pairs.positions["S2"].double().mean().item())
    assert found == pytest.approx(MEANS[forms], abs=0.006)
    assert pairs.orig.shape[1] == 20  # 21 published, less the answer that we leave off


def words_of(tokens: torch.Tensor, pairs: PromptPairs, roles: dict) -> list[tuple[str, str, str]]:
    """The words at IO, S1 and S2 of each prompt."""
    tokenizer = gpt2_tokenizer()
    rows = torch.arange(len(pairs))
    columns = [tokens[rows, roles[role]].tolist() for role in ("IO", "S1", "S2")]
    return [tuple(tokenizer.decode([i]).strip() for i in row) for row in zip(*columns, strict=True)]


def both(pairs: PromptPairs):
    """Words of orig and of new at their roles, prompt by prompt."""
    orig = words_of(pairs.orig, pairs, pairs.positions)
    return list(zip(orig, words_of(pairs.new, pairs, pairs.new_roles), strict=True))


def test_ioi_prompts():
    pairs = ioi_prompts(gpt2_tokenizer(), n=400, seed=3)
    assert pairs.roles == ROLES and len(pairs) == 400
    assert set(pairs.forms.tolist()) == set(FORM_SETS["mixed14"])
    for (io, s1, s2), (a, b, c) in both(pairs):
        assert s1 == s2 != io and len({a, b, c, io, s1}) == 5
    answers = words_of(pairs.answers[:, None], pairs, dict.fromkeys(ROLES, 0))
    assert [answer for answer, *_ in answers] == [orig[0] for orig, _ in both(pairs)]
    rows = torch.arange(400)
    assert torch.equal(pairs.wrong_answers, pairs.orig[rows, pairs.positions["S2"]])
    # What is changed is exactly the three names, and what follows END is <|endoftext|>.
    for i in range(400):
        changed = (pairs.orig[i] != pairs.new[i]).nonzero().flatten().tolist()
        assert changed == sorted(int(pairs.positions[role][i]) for role in ("IO", "S1", "S2"))
        assert set(pairs.orig[i, pairs.end[i] + 1 :].tolist()) <= {50256}


def test_sampling_is_uniform():
    """Each form, place, object and name as often as chance allows (5 standard deviations)."""
    records = sample_records(9000, 5, "all30")
    for key, kinds in (("form", 30), ("place", 8), ("object", 8), ("io", 99), ("s1", 99)):
        counts = collections.Counter(getattr(r, key) for r in records)
        mean = 9000 / kinds
        assert len(counts) == kinds
        assert all(abs(count - mean) < 5 * mean**0.5 for count in counts.values()), key


def test_seeds():
    tokenizer = gpt2_tokenizer()
    first = ioi_prompts(tokenizer, n=20, seed=1)
    torch.manual_seed(9)
    assert ioi_prompts(tokenizer, n=20, seed=1).token_hash() == first.token_hash()
    assert ioi_prompts(tokenizer, n=20, seed=2).token_hash() != first.token_hash()
    longer = ioi_prompts(tokenizer, n=30, seed=1).select(slice(20))
    assert longer.token_hash() == first.token_hash()
    # The draw itself must not change from release to release: results name their seed.
    assert first.token_hash() == "f770dac33d10cd6311fa97692bdf91fde8b097f93d7d5fa5797316496082c4ec"


def test_abc_leaves_the_originals_alone():
    tokenizer = gpt2_tokenizer()
    distinct = ioi_prompts(tokenizer, n=50, abc="distinct")
    authors = ioi_prompts(tokenizer, n=50, abc="authors")
    assert torch.equal(distinct.orig, authors.orig) and torch.equal(distinct.end, authors.end)
    assert torch.equal(distinct.answers, authors.answers)
    assert not torch.equal(distinct.new, authors.new)


def test_the_authors_flips():
    """IO is another name than the prompt's; S1 and S2 are free draws, so few names repeat."""
    found = both(ioi_prompts(gpt2_tokenizer(), n=4000, seed=2, abc="authors"))
    assert all(a not in (io, s) for (io, s, _), (a, _, _) in found)
    # P(some repeat) = 1 - (1 - 1/99)(1 - 2/99) = 3.0 %.
    repeats = sum(len(set(new)) < 3 for _, new in found) / 4000
    assert 0.018 < repeats < 0.042
    assert any(b == s for (_, s, _), (_, b, _) in found)  # nothing is excluded there


def test_bos_shifts_every_role():
    tokenizer = gpt2_tokenizer()
    plain, bos = (ioi_prompts(tokenizer, n=9, prepend_bos=flag) for flag in (False, True))
    assert torch.equal(bos.orig[:, 0], torch.full((9,), 50256))
    assert torch.equal(bos.orig[:, 1:], plain.orig) and torch.equal(bos.new[:, 1:], plain.new)
    for role in ROLES:
        assert torch.equal(bos.positions[role], plain.positions[role] + 1)
    assert torch.equal(bos.answers, plain.answers)


SIGNALS = {
    (1, 1): "ABB",
    (1, -1): "BAB",
    (0, 1): "DCC",
    (0, -1): "CDC",
    (-1, 1): "BAA",
    (-1, -1): "ABA",
}


@pytest.mark.parametrize(("token", "position"), SIGNALS)
def test_signal_sets(token, position):
    pairs = signal_prompts(gpt2_tokenizer(), n=60, seed=4, token=token, position=position)
    assert torch.equal(pairs.orig, ioi_prompts(gpt2_tokenizer(), n=60, seed=4).orig)
    for (io, s, _), new in both(pairs):
        letters = {io: "A", s: "B"}
        for name, letter in zip(new, SIGNALS[token, position], strict=True):
            assert letters.setdefault(name, letter) == letter
        assert [letters[name] for name in new] == list(SIGNALS[token, position])
        # The position signal: which clause-1 name S2 repeats.
        assert new[2] == (new[1] if position == 1 else new[0])
    assert pairs.new_positions is None


def test_random_signal_sets_share_their_names():
    plus, minus = (
        signal_prompts(gpt2_tokenizer(), n=20, token=0, position=sign) for sign in (1, -1)
    )
    for (_, (d, c, _)), (_, (c2, d2, _)) in zip(both(plus), both(minus), strict=True):
        assert (d, c) == (d2, c2)


def test_longer_prefix():
    pairs = longer_prefix_prompts(gpt2_tokenizer(), n=200, seed=6, forms="all30")
    assert torch.equal(pairs.orig, ioi_prompts(gpt2_tokenizer(), 200, 6, "all30").orig)
    shift = pairs.new_end - pairs.end
    assert int(shift.min()) > 0
    for role in ROLES:
        assert torch.equal(pairs.new_positions[role] - pairs.positions[role], shift)
    for orig, new in both(pairs):
        assert orig == new
    assert set(pairs.forms.tolist()) == set(range(30))


@pytest.mark.parametrize("sentences", [1, 2])
@pytest.mark.parametrize("insert", ["IO", "S"])
def test_adversarial(insert, sentences):
    tokenizer = gpt2_tokenizer()
    plain = ioi_prompts(tokenizer, n=150, seed=7, forms="all30")
    pairs = adversarial_prompts(tokenizer, 150, 7, "all30", insert=insert, sentences=sentences)
    shift = pairs.end - plain.end
    for role in ("IO", "S1", "S1+1"):
        assert torch.equal(pairs.positions[role], plain.positions[role])
    assert torch.equal(pairs.positions["S2"] - plain.positions["S2"], shift)
    assert torch.equal(pairs.answers, plain.answers) and pairs.new_positions is None
    counted = [sum(lengths) for lengths in LENGTH_PAIRS] if sentences == 2 else LENGTHS
    assert set(shift.tolist()) == set(counted)
    for i, ((io, s, s2), new) in enumerate(both(pairs)):
        assert s == s2 != io and len({*new, io, s}) == 5
        start = int(pairs.positions["S2"][i] - shift[i])
        start -= len(JOINS.get(int(pairs.forms[i]) % 15, ["."])) - 1  # words behind the mark
        inserted = tokenizer.decode(pairs.orig[i, start : start + int(shift[i])].tolist())
        name = io if insert == "IO" else s
        assert inserted.startswith(f" {name} ") and inserted.endswith(".")
        assert inserted.count(name) == sentences
        assert tokenizer.decode([int(pairs.orig[i, start - 1])]) in (",", ".")
        # In p_ABC the inserted sentence keeps naming whoever stands at that role.
        other = tokenizer.decode(pairs.new[i, start : start + int(shift[i])].tolist())
        assert other == inserted.replace(name, new[0] if insert == "IO" else new[1])


LENGTHS = [6, 6, 4, 7, 6]
LENGTH_PAIRS = [(a, b) for a in LENGTHS for b in LENGTHS]


def test_inserted_sentences_have_the_published_lengths():
    tokenizer = gpt2_tokenizer()
    for name in NAMES:
        found = [len(tokenizer.encode(f" {text.format(name=name)}")) for text in INSERTIONS]
        assert found == LENGTHS


def test_forms_by_id():
    pairs = ioi_prompts(gpt2_tokenizer(), n=30, forms=[4, 29])
    assert set(pairs.forms.tolist()) == {4, 29}
    assert len(TEMPLATES) == 15 and check_forms("mixed14") == (0, 1, 2, 3, 4, 5, 6, *range(15, 22))


REFUSED = [
    ({"n": 0}, ValueError, "n must be an integer of at least 1, got 0"),
    ({"n": 2.5}, ValueError, "n must be an integer"),
    ({"seed": "a"}, TypeError, "seed must be an integer, got 'a'"),
    ({"forms": "mixed"}, ValueError, "forms must be one of .*mixed14.*got 'mixed'"),
    ({"forms": [30]}, ValueError, r"forms must be ids in 0-29, got \[30\]"),
    ({"forms": []}, ValueError, "forms must be ids in 0-29"),
    ({"abc": "other"}, ValueError, r"abc must be one of \['authors', 'distinct'\], got 'other'"),
    ({"prepend_bos": 1}, TypeError, "prepend_bos must be a bool, got 1"),
    ({"tokenizer": None}, TypeError, "tokenizer must have encode and decode"),
]


@pytest.mark.parametrize(("change", "error", "message"), REFUSED)
def test_refused(change, error, message):
    with pytest.raises(error, match=message):
        ioi_prompts(**({"tokenizer": gpt2_tokenizer()} | change))


def test_variants_refuse():
    tokenizer = gpt2_tokenizer()
    with pytest.raises(ValueError, match=r"token must be \+1, 0 or -1, got 2"):
        signal_prompts(tokenizer, token=2, position=1)
    with pytest.raises(ValueError, match=r"position must be \+1 or -1, got 0"):
        signal_prompts(tokenizer, token=1, position=0)
    with pytest.raises(ValueError, match="got 'io'"):
        adversarial_prompts(tokenizer, insert="io")
    with pytest.raises(ValueError, match="sentences must be 1 or 2, got 3"):
        adversarial_prompts(tokenizer, sentences=3)


class Letters:
    """A tokenizer that knows letters alone, or words too."""

    eos_id = 0

    def __init__(self, *words: str) -> None:
        self.words = words

    def encode(self, text: str) -> list[int]:
        return [1] if text in self.words else [ord(letter) for letter in text]

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(i) for i in ids)


def test_words_that_are_not_single_tokens_are_named():
    with pytest.raises(ValueError, match=r"the name ' Aaron' must be a single token, got 6: \[' '"):
        ioi_prompts(Letters())
    names = [f" {name}" for name in NAMES]
    with pytest.raises(ValueError, match="the place ' store' must be a single token"):
        ioi_prompts(Letters(*names))
    with pytest.raises(ValueError, match="the object ' ring' must be a single token"):
        ioi_prompts(Letters(*names, *(f" {place}" for place in PLACES)))


def test_a_tokenizer_that_joins_words_is_refused():
    known = [f" {word}" for word in (*NAMES, *PLACES, *OBJECTS)]
    with pytest.raises(ValueError, match="tokenizer must split at the spaces before names"):
        ioi_prompts(Letters(*known))


def test_transformers_tokenizer_gives_the_same(tmp_path):
    from transformers import PreTrainedTokenizerFast

    ours = gpt2_tokenizer()
    assert isinstance(ours, Tokenizer)
    theirs = PreTrainedTokenizerFast(
        tokenizer_object=ours.backend, eos_token="<|endoftext|>", bos_token="<|endoftext|>"
    )
    pairs = [ioi_prompts(tokenizer, n=12, prepend_bos=True) for tokenizer in (ours, theirs)]
    assert pairs[0].token_hash() == pairs[1].token_hash()
    assert torch.equal(pairs[0].orig, pairs[1].orig)  # padding included
