"""PromptPairs: what it keeps, what it refuses, and that nothing behind END counts."""

from __future__ import annotations

import pickle

import numpy
import pytest
import torch
from small_models import ragged_pairs, tiny_model

from ioi_fast import activation_patch, path_patch
from ioi_fast.asked.prompts import PromptPairs
from ioi_fast.kernels import reference
from ioi_fast.reference.run import plain_run

ORIG = [[5, 3, 9, 4, 0], [6, 3, 8, 0, 0]]
NEW = [[5, 1, 9, 4, 0], [6, 2, 8, 0, 0]]
ROLES = {"IO": [1, 0], "END": [3, 2]}


def pairs(**changes) -> PromptPairs:
    """Two prompts of 4 and 3 tokens, some arguments replaced."""
    arguments = {
        "orig": ORIG,
        "new": NEW,
        "answers": [7, 8],
        "wrong_answers": [1, 2],
        "positions": ROLES,
        "forms": [0, 15],
    }
    return PromptPairs(**(arguments | changes))


def two_lengths() -> PromptPairs:
    """New prompts of 5 and 2 tokens, with positions of their own."""
    new = [[5, 1, 1, 9, 4, 0], [6, 8, 0, 0, 0, 0]]
    return pairs(new=new, new_positions={"END": [4, 1], "IO": [2, 0]})


def test_tokens_end_at_the_last_end():
    found = pairs()
    assert found.orig.tolist() == [[5, 3, 9, 4], [6, 3, 8, 0]]
    assert found.new.shape == (2, 4)
    assert len(found) == 2 and found.roles == ("IO", "END")
    assert found.end.tolist() == [3, 2] and found.new_end.tolist() == [3, 2]
    assert found.new_positions is None and found.new_roles is found.positions


def test_new_prompts_of_other_length():
    found = two_lengths()
    assert found.orig.shape == (2, 4) and found.new.shape == (2, 5)
    assert found.new_end.tolist() == [4, 1]
    assert list(found.new_roles) == ["IO", "END"]  # the order of positions


@pytest.mark.parametrize(
    "convert",
    [
        torch.tensor,
        numpy.array,
        tuple,
        lambda x: numpy.array(x[::-1])[::-1],
        lambda x: torch.tensor(x, dtype=torch.int32),
        lambda x: numpy.array(x, dtype=numpy.uint8),
        lambda x: torch.tensor(x).mT.contiguous().mT if numpy.ndim(x) == 2 else torch.tensor(x),
    ],
)
def test_any_container_of_integers(convert):
    found = pairs(
        orig=convert(ORIG),
        new=convert(NEW),
        answers=convert([7, 8]),
        positions={role: convert(at) for role, at in ROLES.items()},
    )
    for tensor in (found.orig, found.new, found.answers, *found.positions.values()):
        assert tensor.dtype == torch.int64 and tensor.is_contiguous()
    assert found.token_hash() == pairs().token_hash()


def test_the_callers_memory_is_never_shared():
    orig, end = torch.tensor(ORIG), numpy.array([3, 2])
    roles = {"END": end}
    found = pairs(orig=orig, positions=roles)
    before = found.token_hash()
    orig.fill_(1)
    end.fill(0)
    roles["IO"] = [0, 0]
    assert found.token_hash() == before and found.roles == ("END",)


def test_swapped_twice_is_the_same():
    once = two_lengths().swapped()
    assert torch.equal(once.orig, two_lengths().new) and torch.equal(once.new, two_lengths().orig)
    assert once.end.tolist() == [4, 1] and once.new_end.tolist() == [3, 2]
    assert once.answers.tolist() == [7, 8] and once.direction == "denoising"
    twice = once.swapped()
    assert twice.token_hash() == two_lengths().token_hash() and twice.direction == "noising"
    assert pairs().swapped().new_positions is None


@pytest.mark.parametrize("which", [[1], slice(1, None), torch.tensor([1]), numpy.array([-1])])
def test_select(which):
    found = two_lengths().select(which)
    assert len(found) == 1 and found.orig.tolist() == [[6, 3, 8]]
    assert found.new.tolist() == [[6, 8]] and found.forms.tolist() == [15]
    assert found.positions["IO"].tolist() == [0] and found.new_end.tolist() == [1]


def test_select_repeats_and_refuses():
    assert pairs().select([1, 0, 1]).answers.tolist() == [8, 7, 8]
    with pytest.raises(ValueError, match="which must choose at least one of 2 prompts"):
        pairs().select(slice(2, None))
    with pytest.raises(IndexError):
        pairs().select([2])
    with pytest.raises(TypeError, match="which must hold integers, got bool"):
        pairs().select([True, False])
    with pytest.raises(ValueError, match=r"which must be a slice or indices .* at least one"):
        pairs().select([])


def test_hash_ignores_what_follows_end_and_nothing_else():
    before = pairs().token_hash()
    assert len(before) == 64
    padded = [[5, 3, 9, 4, 6], [6, 3, 8, 17, 9]]
    assert pairs(orig=padded).token_hash() == before
    assert pairs(new=[[5, 1, 9, 4, 0], [6, 2, 8, 3, 0]]).token_hash() == before
    for change in (
        {"orig": [[5, 3, 9, 4, 0], [6, 3, 7, 0, 0]]},
        {"new": [[5, 1, 9, 3, 0], [6, 2, 8, 0, 0]]},
        {"forms": [9, 9]},
        {"answers": [7, 9]},
        {"wrong_answers": [1, 3]},
        {"positions": {"IO": [1, 1], "END": [3, 2]}},
        {"positions": {"S1": [1, 0], "END": [3, 2]}},
        {"new_positions": {"IO": [0, 0], "END": [3, 2]}},
    ):
        assert pairs(**change).token_hash() != before, change


def test_hash_is_the_same_in_every_process():
    assert pairs().token_hash() == (
        "f346532f26cff56df93e4c62f5ab5d3b92f013af3e221af7b98e98ac2917808f"
    )


def test_vocabulary():
    pairs().check_vocabulary(10)
    with pytest.raises(ValueError, match=r"orig must hold ids below 9 .* got 9 in prompt 0 at pos"):
        pairs().check_vocabulary(9)
    with pytest.raises(ValueError, match=r"wrong_answers .* below 10 .* got 12 in prompt 1"):
        pairs(wrong_answers=[1, 12]).check_vocabulary(10)


def test_vocabulary_names_the_argument():
    with pytest.raises(ValueError, match=r"mean_pairs\.new must hold ids below 9 .* got 9 "):
        pairs(orig=[[5, 3, 8, 4, 0], [6, 3, 8, 0, 0]]).check_vocabulary(9, "mean_pairs")
    with pytest.raises(ValueError, match=r"^pairs\.orig must hold ids below 9 "):
        pairs().check_vocabulary(9)


@pytest.mark.parametrize("padding", [10, 10**12, -1, -100])
def test_ids_behind_end_need_not_be_in_the_vocabulary(padding):
    """Neither negative ones nor large ones; afterwards they can be looked up all the same."""
    orig = [[5, 3, 9, 4, 0], [6, 3, 8, padding, 0]]
    new = [[5, 1, 9, 4, 0], [6, 2, 8, padding, 0]]
    found = pairs(orig=orig, new=new)
    before = found.token_hash()
    found.check_vocabulary(10)
    assert found.token_hash() == before == pairs().token_hash()
    assert found.orig.tolist() == [[5, 3, 9, 4], [6, 3, 8, 0]]
    assert found.new.tolist() == [[5, 1, 9, 4], [6, 2, 8, 0]]
    with pytest.raises(ValueError, match=r"new .* got 10 in prompt 1 at position 2"):
        pairs(new=[[5, 1, 9, 4, 0], [6, 2, 10, 3, 0]]).check_vocabulary(10)
    with pytest.raises(ValueError, match=r"new must hold ids of at least 0, got -1 \(prompt 1\)"):
        pairs(new=[[5, 1, 9, 4, 0], [6, 2, -1, 3, 0]])


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_padding_that_no_vocabulary_has_changes_no_result(backend):
    plain, model = ragged_pairs(), tiny_model()
    behind = torch.arange(7) > plain.end[:, None]
    assert behind.any()
    fields = ("answers", "wrong_answers", "positions")
    odd = PromptPairs(
        plain.orig.masked_fill(behind, 10**9),
        plain.new.masked_fill(behind, -100),
        **{name: getattr(plain, name) for name in fields},
    )
    for position in ("END", None):
        arguments = {"receivers": ["2.0.k"], "position": position, "backend": backend}
        expected = path_patch(model, plain, ["0.1", "mlp1"], **arguments)
        found = path_patch(model, odd, ["0.1", "mlp1"], **arguments)
        assert torch.allclose(found.values, expected.values, rtol=0, atol=1e-5)
        assert expected.values.any()


def test_padding_of_longer_new_prompts_ends_at_their_own_end():
    new = [[5, 1, 1, 9, 4, 99], [6, 8, 99, 99, 99, 99]]
    found = pairs(new=new, new_positions={"END": [4, 1], "IO": [2, 0]})
    found.check_vocabulary(10)
    assert found.new.tolist() == [[5, 1, 1, 9, 4], [6, 8, 0, 0, 0]]


def test_pickle_and_repr():
    copy = pickle.loads(pickle.dumps(two_lengths()))
    assert copy.token_hash() == two_lengths().token_hash()
    assert repr(copy) == "PromptPairs(N=2, T=4, new T=5, roles=IO, END)"
    with pytest.raises(AttributeError):
        copy.orig = copy.new


REFUSED = [
    ({"orig": []}, ValueError, "orig must hold at least one prompt"),
    ({"orig": [5, 3]}, ValueError, r"orig must have shape \[prompts, tokens\].*got \[2\]"),
    ({"orig": torch.zeros(0, 4, dtype=torch.int64)}, ValueError, r"orig .* got \[0, 4\]"),
    ({"orig": [[5, 3], [6]]}, TypeError, "orig must hold integers of one shape"),
    ({"orig": torch.tensor(ORIG).float()}, TypeError, "orig must hold integers, got float32"),
    ({"orig": [["a"]]}, TypeError, "orig must hold integers"),
    ({"orig": None}, TypeError, "orig must hold integers"),
    ({"orig": [[5, -3, 9, 4, 0], [6, 3, 8, 0, 0]]}, ValueError, r"orig .* got -3 \(prompt 0\)"),
    ({"new": NEW[:1]}, ValueError, r"new must have as many prompts as orig \(2\), got 1"),
    ({"new": [[5, 1, 9], [6, 2, 8]]}, ValueError, r"new must be as wide as orig \(5 .* new_posi"),
    (
        {"answers": [7]},
        ValueError,
        r"answers must have one entry for each of 2 prompts, got shape \[1\]",
    ),
    ({"answers": [[7, 8]]}, ValueError, r"answers .* got shape \[1, 2\]"),
    ({"answers": [7, -8]}, ValueError, r"answers must hold ids of at least 0, got -8 \(prompt 1\)"),
    ({"wrong_answers": [1.0, 2.0]}, TypeError, "wrong_answers must hold integers, got float"),
    ({"wrong_answers": [True, False]}, TypeError, "wrong_answers must hold integers, got bool"),
    ({"forms": [1, 2, 3]}, ValueError, "forms must have one entry for each of 2"),
    ({"forms": "ab"}, TypeError, "forms must hold integers of one shape, got a str"),
    ({"forms": {0: 1}}, TypeError, "forms must hold integers of one shape, got a dict"),
    ({"forms": [0, 1.7]}, TypeError, "forms must hold integers, got float"),
    ({"forms": [True, 1]}, TypeError, "forms must hold integers, got a bool among them"),
    ({"orig": [[5, 3, 9, True], [6, 3, 8, 0]]}, TypeError, "orig .* got a bool among them"),
    ({"forms": []}, ValueError, r"forms must have one entry for each of 2 .* got shape \[0\]"),
    ({"forms": [[0, 1]]}, ValueError, r"forms must have one entry .* got shape \[1, 2\]"),
    ({"forms": 1}, ValueError, r"forms must have one entry .* got shape \[\]"),
    ({"positions": [3, 2]}, TypeError, "positions must be a dict .* got list"),
    ({"positions": {"IO": [0, 0]}}, ValueError, r"""positions must hold "END", got \['IO'\]"""),
    (
        {"positions": {"END": [5, 2]}},
        ValueError,
        r"inside its prompt of 5 tokens, got 5 \(prompt 0",
    ),
    ({"positions": {"END": [3, -1]}}, ValueError, r'positions\["END"\] .* got -1'),
    ({"positions": {"END": 3}}, ValueError, r'positions\["END"\] must have one entry'),
    ({"positions": {"END": [3, 2], 4: [0, 0]}}, TypeError, "strings as roles, got 4"),
    ({"positions": {"END": [3, 2], "all": [0, 0]}}, ValueError, "'all' can't be a role"),
    ({"positions": {"END": [3, 2], "each": [0, 0]}}, ValueError, "'each' can't be a role"),
    ({"positions": {"END": [3, 2], "": [0, 0]}}, ValueError, "'' can't be a role"),
    (
        {"positions": {"END": [3, 2], "S2": [3, 3]}},
        ValueError,
        r'positions\["S2"\] must not lie behind END, got 3 in prompt 1 whose END is 2',
    ),
    (
        {"new_positions": {"END": [3, 2]}},
        ValueError,
        r"new_positions must name the roles of positions \['END', 'IO'\], got \['END'\]",
    ),
    (
        {"new_positions": {"END": [5, 2], "IO": [0, 0]}},
        ValueError,
        r'new_positions\["END"\] must lie inside its prompt of 5',
    ),
    (
        {"new_positions": {"END": [3, 2], "IO": [0, 3]}},
        ValueError,
        r'new_positions\["IO"\] must not lie behind END',
    ),
    ({"direction": "up"}, ValueError, "direction must be"),
]


@pytest.mark.parametrize(("change", "error", "message"), REFUSED)
def test_refused(change, error, message):
    with pytest.raises(error, match=message):
        pairs(**change)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("longer", ["new", "orig"])
def test_prompts_of_other_widths_need_positions_of_their_own(longer: str, backend: str) -> None:
    """A prompt that is one token longer was cut at the other's END, where the model says another
    thing; with its own positions the patch takes what it has at its END."""
    model = tiny_model()
    short, long = [[5, 3, 9, 4], [6, 3, 8, 7]], [[5, 1, 9, 2, 4], [6, 2, 8, 5, 7]]
    tokens = {"orig": short, "new": long} if longer == "new" else {"orig": long, "new": short}
    ends = {name: {"END": [len(rows[0]) - 1] * 2} for name, rows in tokens.items()}
    rest = {"answers": [7, 8], "wrong_answers": [1, 2], "positions": ends["orig"]}
    with pytest.raises(ValueError, match=r"^new must be as wide as orig \(. tokens.*new_positions"):
        PromptPairs(**tokens, **rest)
    whole = PromptPairs(**tokens, **rest, new_positions=ends["new"])
    found = activation_patch(model, whole, "resid_pre", "END", backend=backend)
    last = activation_patch(model, whole, "mlp_out", "END", backend=backend)
    # END's stream before the last layer, in the original's context, by hand.
    exact = model.to(dtype=torch.float64)
    orig, new = (plain_run(exact, getattr(whole, n), torch.tensor(ends[n]["END"])) for n in tokens)
    at = torch.arange(2)
    stream = orig.used["resid_mid", 2][at, whole.end] + new.used["mlp_out", 2][at, whole.new_end]
    w = exact.weights
    logits = reference.layernorm(stream, w.ln_f_gain, w.ln_f_bias, 1e-5) @ w.unembed.T
    expected = logits[at, whole.answers] - logits[at, whole.wrong_answers]
    assert torch.allclose((last.base + last.values[2]).double(), expected, rtol=0, atol=1e-5)
    assert found.values.any()
    # Cut, new ends at another token: what came out before is not near it.
    if longer == "new":
        cut = PromptPairs(short, [row[:4] for row in long], **rest)
        before = activation_patch(model, cut, "mlp_out", "END", backend=backend)
        assert (before.values[2] - last.values[2]).abs().max() > 0.01
