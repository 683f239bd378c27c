"""Who tells the movers: S-inhibition heads, or those that stand in their place."""

from __future__ import annotations

from ioi_fast import Circuit
from ioi_fast.asked.nodes import Head
from ioi_fast.ioi.circuits import members, published_circuit
from ioi_fast.ioi.tellers import Tellers, tellers_of

MOVER, TELLER = "name mover (reads END-1)", "END-1 from S2"


def test_s_inhibition_heads_tell_the_published_movers() -> None:
    heads = ("7.3", "7.9", "8.6", "8.10")
    assert tellers_of(published_circuit()) == Tellers("S-inhibition", heads, "END", "q")


def test_others_stand_in_by_their_edges() -> None:
    heads = {"0.5": "END-1", "0.6": "END-1", "0.1": "END", "1.6": "END", "2.3": "END"}
    classes = {MOVER: ["1.6", "2.3"], TELLER: ["0.5", "0.6"], "END from S1": ["0.1"]}
    edges = [("0.5", "1.6.v"), ("0.6", "2.3.v"), ("0.1", "1.6.q"), ("1.6", "2.3.q")]
    found = tellers_of(Circuit(heads, classes, edges))
    assert found == Tellers(TELLER, ("0.5", "0.6"), "END-1", "v")
    assert found.place == "END-1 from S2 heads at END-1"
    others = [("0.1", "1.6.q"), ("0.1", "2.3.q"), ("0.5", "2.3.v"), ("2.3", "logits")]
    assert tellers_of(Circuit(heads, classes, others)).heads == ("0.1",)
    assert tellers_of(Circuit(heads, classes, [("1.6", "2.3.q"), ("1.6", "logits")])) is None
    assert tellers_of(Circuit(heads, {TELLER: ["0.5"]}, edges)) is None


def test_members_are_of_a_class_and_of_those_that_half_fit() -> None:
    heads = {"0.1": "END", "1.6": "END", "2.3": "END"}
    classes = {"name mover": ["1.6"], MOVER: ["2.3", "1.6"], "backup name mover": ["0.1"]}
    assert members(Circuit(heads, classes), "name mover") == (Head(1, 6), Head(2, 3))
    assert members(Circuit(heads, classes), "induction") == ()
