"""Names of heads, MLPs, senders and receivers: what is read, and what is refused and how."""

from __future__ import annotations

import re

import numpy
import pytest
import torch

from ioi_fast import GPT2Config
from ioi_fast.asked.nodes import (
    Head,
    Mlp,
    Sender,
    all_heads,
    parse_node,
    parse_senders,
    split_senders,
)
from ioi_fast.asked.receivers import Receiver, parse_receivers, split_receivers

CONFIG = GPT2Config(n_layer=12, n_head=12, n_embd=24)


def refused(error: type[Exception], *parts: str):
    """Expects an error whose message holds all parts, in this order."""
    return pytest.raises(error, match="(?s)" + ".*".join(re.escape(part) for part in parts))


@pytest.mark.parametrize(
    ("text", "head"),
    [
        ("9.6", Head(9, 6)),
        ("10.7", Head(10, 7)),
        ("11.10", Head(11, 10)),
        ("0.0", Head(0, 0)),
        ("L9H6", Head(9, 6)),
        ("l10h11", Head(10, 11)),
        ("a9.h6", Head(9, 6)),
        ("A10.11", Head(10, 11)),
        (" 9.6 ", Head(9, 6)),
    ],
)
def test_a_head_is_read_and_printed(text: str, head: Head) -> None:
    assert Head.parse(text) == head
    assert str(head) == f"{head.layer}.{head.head}"
    assert Head.parse(str(head)) == head


@pytest.mark.parametrize(
    "text", ["9", "9.", ".6", "9,6", "9.6.q", "-1.0", "9.-6", "9.6 x", "L9", ""]
)
def test_other_text_is_no_head(text: str) -> None:
    with refused(ValueError, "expected a head like '9.6'", repr(text)):
        Head.parse(text)


@pytest.mark.parametrize("text", ["mlp3", "MLP3", "mlp 3", "m3", " mlp3"])
def test_an_mlp_is_read_and_printed(text: str) -> None:
    assert Mlp.parse(text) == Mlp(3)
    assert str(Mlp(3)) == "mlp3"


@pytest.mark.parametrize("text", ["mlp", "3", "mlp3.0", "mlp-1", "mlps"])
def test_other_text_is_no_mlp(text: str) -> None:
    with refused(ValueError, "expected an MLP like 'mlp3'", repr(text)):
        Mlp.parse(text)


@pytest.mark.parametrize(
    "value",
    [
        "9.6",
        (9, 6),
        (numpy.int64(9), numpy.int32(6)),
        (torch.tensor(9), torch.tensor(6)),
        Head(9, 6),
        Head(numpy.int64(9), numpy.int64(6)),
    ],
)
def test_a_head_may_be_written_in_many_ways(value: object) -> None:
    node = parse_node(value, CONFIG, "senders")
    assert node == Head(9, 6) and str(node) == "9.6"
    assert type(node.layer) is int and type(node.head) is int


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("12.0", ["layer 12 of 12.0 is out of range", "12 layers (0-11)"]),
        ("3.12", ["head 12 of 3.12 is out of range", "12 heads (0-11)"]),
        ((3, -1), ["head -1 of 3.-1 is out of range", "12 heads (0-11)"]),
        ((-1, 3), ["layer -1 of -1.3 is out of range", "12 layers (0-11)"]),
        ("mlp12", ["layer 12 of mlp12 is out of range"]),
        (Mlp(-1), ["layer -1 of mlp-1 is out of range"]),
        ("heads", ["expected a head like '9.6' or an MLP like 'mlp3'", "'heads'"]),
        ("9.9.q", ["expected a head like '9.6'", "'9.9.q'"]),
    ],
)
def test_a_node_outside_the_model_is_refused(value: object, message: list[str]) -> None:
    with refused(ValueError, "senders", *message):
        parse_node(value, CONFIG, "senders")


@pytest.mark.parametrize(
    "value",
    [9, None, 9.6, (9,), (9, 6, 1), (9.0, 6), (True, 6), ("9", "6"), Head("9", 6), Mlp(1.0)],
)
def test_what_names_no_node_is_a_type_error(value: object) -> None:
    with refused(TypeError, "knock_out: expected a head like '9.6' or (9, 6)", repr(value)):
        parse_node(value, CONFIG, "knock_out")


def test_all_heads_stand_in_layer_order() -> None:
    senders = parse_senders("heads", CONFIG)
    assert senders == all_heads(CONFIG) and len(senders) == 144
    assert senders[9 * 12 + 6] == Sender((Head(9, 6),))
    assert [str(sender) for sender in parse_senders("mlps", CONFIG)] == [
        f"mlp{layer}" for layer in range(12)
    ]


@pytest.mark.parametrize("kind", [list, tuple, iter, numpy.array])
def test_a_list_of_senders_keeps_its_order(kind: type) -> None:
    senders = parse_senders(kind(["9.9", "mlp3", "0.1"]), CONFIG)
    assert [str(sender) for sender in senders] == ["9.9", "mlp3", "0.1"]


def test_a_nested_list_is_one_sender() -> None:
    senders = parse_senders([["8.6", "8.10"], "9.9", ["mlp3", (1, 2)], Sender((Mlp(0),))], CONFIG)
    assert [str(sender) for sender in senders] == ["8.6+8.10", "9.9", "mlp3+1.2", "mlp0"]
    assert senders[2].heads == (Head(1, 2),) and senders[2].mlps == (Mlp(3),)
    assert senders[0].mlps == ()


def test_what_is_typed_is_split_into_senders_and_receivers() -> None:
    assert split_senders("8.6+8.10, 9.9") == [["8.6", "8.10"], "9.9"]
    assert split_senders("heads") == "heads" and split_senders("mlp3") == ["mlp3"]
    assert split_receivers("9.9.q, mlp5") == ["9.9.q", "mlp5"]
    assert split_receivers("logits") == "logits"


@pytest.mark.parametrize(
    "entries",
    [
        ["9.9", "0.1", "L9H9"],
        ["9.9", (9, 9)],
        ["9.9", ["9.9"]],
        ["mlp1", "m1"],
        [["8.6", "8.10"], ["8.10", "8.6"]],
    ],
)
def test_an_entry_that_is_there_twice_is_refused(entries: list) -> None:
    with refused(ValueError, "senders:", "is there twice"):
        parse_senders(entries, CONFIG)


def test_a_node_may_be_in_several_groups_but_once_in_each() -> None:
    assert len(parse_senders(["9.9", ["9.9", "9.6"], ["9.9", "mlp9"]], CONFIG)) == 3
    with refused(ValueError, "senders: 9.9 is there twice"):
        parse_senders([["9.9", "9.6", (9, 9)]], CONFIG)


@pytest.mark.parametrize("value", [[], (), numpy.array([])])
def test_no_senders_at_all_are_refused(value: object) -> None:
    with refused(ValueError, "senders must be 'heads', 'mlps' or a list", "got an empty list"):
        parse_senders(value, CONFIG)
    with refused(ValueError, "receivers must be 'logits' or a list", "got an empty list"):
        parse_receivers(value, CONFIG)


def test_an_empty_group_is_refused() -> None:
    with refused(ValueError, "senders: a group must have at least one node"):
        parse_senders(["9.9", []], CONFIG)


@pytest.mark.parametrize("value", ["9.9", "head", None, 9, Head(9, 9), {"9.9"}, {"9.9": "END"}])
def test_what_is_no_list_is_refused(value: object) -> None:
    with refused(TypeError, "senders must be 'heads', 'mlps' or a list like", repr(value)):
        parse_senders(value, CONFIG)
    with refused(TypeError, "heads must be 'heads' or a list like ['9.9', '10.0'], got"):
        parse_senders(value, CONFIG, "heads")
    with refused(TypeError, "receivers must be 'logits' or a list like", repr(value)):
        parse_receivers(value, CONFIG)


@pytest.mark.parametrize("value", [["heads"], ["9.9", "mlps"]])
def test_the_words_are_no_entries(value: list) -> None:
    with refused(ValueError, "senders: expected a head like '9.6' or an MLP", repr(value[-1])):
        parse_senders(value, CONFIG)


@pytest.mark.parametrize("entry", [9, ("9.9", "9.6"), [9, 9], torch.tensor([9, 9]), None])
def test_an_entry_that_is_no_node_is_refused(entry: object) -> None:
    with refused(TypeError, "senders: expected a head like '9.6' or (9, 6)"):
        parse_senders(["9.9", entry], CONFIG)


def test_arrays_are_not_taken_for_words() -> None:
    with pytest.raises(TypeError, match="senders"):
        parse_senders(numpy.arange(4), CONFIG)
    with pytest.raises(ValueError, match="receivers"):
        parse_receivers(numpy.arange(4), CONFIG)


def test_receivers_are_read_and_printed() -> None:
    receivers = parse_receivers(["9.9.q", "L10H0.k", "a9.h6.v", "mlp5", Mlp(6)], CONFIG)
    assert [str(receiver) for receiver in receivers] == ["9.9.q", "10.0.k", "9.6.v", "mlp5", "mlp6"]
    assert receivers[1] == Receiver(Head(10, 0), "k")
    assert receivers[3] == Receiver(Mlp(5), "mlp_in")
    assert parse_receivers(receivers, CONFIG) == receivers
    assert parse_receivers("logits", CONFIG) is None


@pytest.mark.parametrize(
    "entry",
    ["9.9", "9.9.z", "9.9.Q", "9.9.qk", "mlp5.q", "logits", (9, 9), Head(9, 9), 3, ["9.9.q"]],
)
def test_what_is_no_receiver_is_refused(entry: object) -> None:
    with refused(ValueError, "receivers: expected"):
        parse_receivers(["9.6.q", entry], CONFIG)


@pytest.mark.parametrize(
    "receiver",
    [Receiver(Mlp(3), "q"), Receiver(Head(9, 9), "mlp_in"), Receiver(Head(9, 9), "z")],
)
def test_a_receiver_that_does_not_exist_is_refused(receiver: Receiver) -> None:
    with refused(ValueError, "receivers: expected a receiver like '9.9.q'", repr(receiver)):
        parse_receivers([receiver], CONFIG)


@pytest.mark.parametrize(
    "entry", ["9.9.zz", "9.9.", ".q", "zz", "", Receiver(Head(1, 1), "zz"), Receiver(None, "q")]
)
def test_a_receiver_is_not_mistaken_for_a_head(entry: object) -> None:
    with refused(ValueError, "receivers: expected a receiver like '9.9.q' or 'mlp5'", repr(entry)):
        parse_receivers([entry], CONFIG)


@pytest.mark.parametrize("sender", [Sender(5), Sender("11")])
def test_a_sender_without_nodes_is_refused(sender: Sender) -> None:
    with refused(TypeError, "senders: a Sender must hold a tuple of nodes", repr(sender)):
        parse_senders([sender], CONFIG)


@pytest.mark.parametrize("entry", ["12.0.q", "3.12.v", "mlp12", Receiver(Head(12, 0), "q")])
def test_a_receiver_outside_the_model_is_refused(entry: object) -> None:
    with refused(ValueError, "receivers:", "is out of range"):
        parse_receivers([entry], CONFIG)


def test_a_receiver_that_is_there_twice_is_refused() -> None:
    with refused(ValueError, "receivers: 9.9.q is there twice"):
        parse_receivers(["9.9.q", "9.9.k", "L9H9.q"], CONFIG)
    assert len(parse_receivers(["9.9.q", "9.9.k", "9.9.v"], CONFIG)) == 3
