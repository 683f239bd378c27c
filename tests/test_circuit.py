"""Circuits: classes and edges that do not belong to their heads, and variants given twice."""

from __future__ import annotations

import re

import pytest
from small_models import TINY, ragged_pairs

from ioi_fast import Circuit
from ioi_fast.asked.circuit_files import circuit_from_dict, circuit_to_dict
from ioi_fast.asked.interventions import parse_variants
from ioi_fast.asked.nodes import Head, Mlp
from ioi_fast.asked.receivers import Receiver

HEADS = {"1.1": "END", "0.1": "S2"}


def refused(error: type[Exception], *parts: str):
    """Expects an error whose message holds all parts, in this order."""
    return pytest.raises(error, match=".*".join(re.escape(part) for part in parts))


@pytest.mark.parametrize(
    ("classes", "error", "message"),
    [
        (["1.1"], TypeError, "classes must be a dict like {'mover': ['9.9']}, got ['1.1']"),
        (0, TypeError, "classes must be a dict like {'mover': ['9.9']}, got 0"),
        ({5: ["1.1"]}, TypeError, "classes must have strings as names, got 5"),
        ({"m": 5}, TypeError, "classes['m'] must be a list like ['9.9'], got 5"),
        ({"m": None}, TypeError, "classes['m'] must be a list like ['9.9'], got None"),
        ({"m": "1.1"}, TypeError, "classes['m'] must be a list like ['9.9'], got '1.1'"),
        ({"m": {"1.1": "END"}}, TypeError, "classes['m'] must be a list like ['9.9'], got {"),
        ({"m": ["1.1", (1, 1)]}, ValueError, "classes['m']: 1.1 is there twice"),
        ({"m": ["2.2"]}, ValueError, "classes['m']: 2.2 is not in the circuit"),
        ({"m": ["mlp1"]}, ValueError, "classes['m']: expected a head like '9.9', got 'mlp1'"),
    ],
)
def test_classes_are_lists_of_the_heads(classes: object, error: type, message: str) -> None:
    with refused(error, message):
        Circuit(HEADS, classes)


def test_a_head_may_be_kept_at_several_roles() -> None:
    circuit = Circuit({"1.1": "END", "0.1": ["S2", "S1"]})
    assert circuit.roles == {Head(0, 1): ("S2", "S1"), Head(1, 1): ("END",)}
    assert circuit.nodes == ((Head(0, 1), "S2"), (Head(0, 1), "S1"), (Head(1, 1), "END"))
    assert repr(circuit) == "Circuit(0.1@S2/S1, 1.1@END)"
    written = circuit_to_dict(circuit)
    assert written["heads"] == {"0.1": ["S2", "S1"], "1.1": "END"}
    assert circuit_from_dict(written).roles == circuit.roles


@pytest.mark.parametrize(
    ("kept", "error", "message"),
    [
        ([], ValueError, "heads[0.1] must have at least one role, got an empty list"),
        (["S2", "S2"], ValueError, "heads[0.1]: S2 is there twice"),
        (
            ["S2", 3],
            TypeError,
            "heads[0.1] must be a role like 'END' or a list of roles, got ['S2'",
        ),
        (3, TypeError, "heads[0.1] must be a role like 'END' or a list of roles, got 3"),
        ("", ValueError, "heads[0.1] must be roles like 'END', got ''"),
        (["S2", "all"], ValueError, "heads[0.1] must be roles like 'END', got ['S2', 'all']"),
        ({"S2"}, TypeError, "heads[0.1] must be a role like 'END' or a list of roles, got {'S2'}"),
    ],
)
def test_roles_of_a_head_are_one_or_a_list(kept: object, error: type, message: str) -> None:
    with refused(error, message):
        Circuit({"0.1": kept})


PAIR = "must be a pair like ('2.2', '5.5.k'), got "


@pytest.mark.parametrize(
    ("edges", "error", "message"),
    [
        (5, TypeError, "edges must be a list like [('2.2', '5.5.k')], got 5"),
        ("ab", TypeError, "edges must be a list like [('2.2', '5.5.k')], got 'ab'"),
        ({"0.1": "1.1.q"}, TypeError, "edges must be a list like"),
        (["ab"], TypeError, f"edges[0] {PAIR}'ab'"),
        ([("0.1", "1.1.q"), ("0.1",)], TypeError, f"edges[1] {PAIR}('0.1',)"),
        ([("0.1", "1.1.q", 3)], TypeError, f"edges[0] {PAIR}('0.1', '1.1.q', 3)"),
        ([(1, 2)], TypeError, "edges[0]: expected a head like '9.6'"),
        ([("zz", "1.1.q")], ValueError, "edges[0]: expected a head like '9.6'"),
        ([("0.1", "1.1.zz")], ValueError, "edges[0]: expected a receiver like '9.9.q' or 'mlp5'"),
        ([("0.1", "1.1")], ValueError, "edges[0]: expected a receiver like '9.9.q' or 'mlp5'"),
        ([("2.2", "1.1.q")], ValueError, "edges[0]: 2.2 is not in the circuit"),
        ([("1.1", "0.1.q")], ValueError, "edges[0]: 1.1 can't reach 0.1.q, which comes earlier"),
        ([("0.1", "2.2.q")], ValueError, "edges[0]: 2.2 is not in the circuit"),
        ([("0.1", "1.1.q"), ((0, 1), "L1H1.q")], ValueError, "edges: ('0.1', '1.1.q') is there tw"),
    ],
)
def test_edges_are_pairs_of_the_heads(edges: object, error: type, message: str) -> None:
    with refused(error, message):
        Circuit(HEADS, edges=edges)


def test_edges_may_be_written_in_many_ways() -> None:
    edges = [
        ("0.1", "L1H1.q"),
        [Head(0, 1), Receiver(Head(1, 1), "k")],
        ((1, 1), "logits"),
        ("m0", Mlp(1)),
    ]
    expected = (("0.1", "1.1.q"), ("0.1", "1.1.k"), ("1.1", "logits"), ("mlp0", "mlp1"))
    assert Circuit(HEADS, edges=edges).edges == expected
    assert Circuit(HEADS, {"all": HEADS.keys()}).classes == {"all": (Head(1, 1), Head(0, 1))}


@pytest.mark.parametrize(
    "twice",
    [
        [{"0.1": "END"}, {}, {"L0H1": "END"}],
        [{}, {"0.1": "END"}, {}],
        [{"0.1": "END", "1.1": "S2"}, {"0.1": "END"}, {"1.1": "S2", "0.1": "END"}],
    ],
)
def test_variants_that_are_equal_are_refused(twice: list) -> None:
    with refused(ValueError, "variants must differ, got {", "as variants[0] and variants[2]"):
        parse_variants(ragged_pairs(), TINY, twice, "mean", "model")


def test_variants_that_differ_in_a_role_or_a_node_are_not_equal() -> None:
    variants = [{}, {"0.1": "END"}, {"0.1": "S2"}, {"0.1": "all"}, {"0.1": "END", "mlp1": "END"}]
    parsed = parse_variants(ragged_pairs(), TINY, variants, "mean", "model")
    assert len(parsed.variants) == 5
