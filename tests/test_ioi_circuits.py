"""Published circuits as data, circuits in files, and the sets that minimality is measured with."""

from __future__ import annotations

import json

import pytest

from ioi_fast import Circuit, GPT2Config
from ioi_fast.asked.circuit_files import (
    circuit_from_dict,
    circuit_to_dict,
    load_circuit,
    save_circuit,
)
from ioi_fast.asked.nodes import Head, parse_node
from ioi_fast.ioi.circuits import circuit_of_classes, published_circuit
from ioi_fast.ioi.minimality import minimality_sets


def heads(text: str) -> set[Head]:
    return {Head.parse(head) for head in text.split()}


def test_the_published_circuit() -> None:
    circuit = published_circuit()
    assert len(circuit.roles) == 26 and len(circuit.classes) == 7
    for head in circuit.roles:
        parse_node(head, GPT2Config(), "head")
    by_role = {
        role: {h for h, r in circuit.roles.items() if r == (role,)} for role in ("S1+1", "S2")
    }
    assert by_role["S1+1"] == heads("2.2 4.11")
    assert by_role["S2"] == heads("0.1 3.0 0.10 5.5 6.9 5.8 5.9")
    nodes = len(circuit.roles) / (12 * 12 * 16.4)  # heads at one of about 16 tokens
    assert 0.010 < nodes < 0.012, "1.1 % of all (head, position) nodes"
    assert set(circuit.classes["name mover"]) == heads("9.9 9.6 10.0")


def test_the_naive_circuit_is_part_of_it() -> None:
    full, naive = published_circuit(), published_circuit("naive")
    assert len(naive.roles) == 13 and naive.roles.items() <= full.roles.items()
    assert set(naive.edges) <= set(full.edges)
    with pytest.raises(ValueError, match="name must be one of full, naive, got 'best'"):
        published_circuit("best")


def test_edges_run_forward_and_through_the_inputs_of_the_paper() -> None:
    edges = set(published_circuit().edges)
    assert {("2.2", "5.5.k"), ("2.2", "5.5.v"), ("5.5", "7.3.k"), ("0.1", "8.6.v")} <= edges
    assert {("7.3", "9.9.q"), ("8.10", "10.7.q"), ("9.9", "logits"), ("11.10", "logits")} <= edges
    assert not [e for e in edges if e[0] in ("9.9", "7.3") and e[1].endswith((".k", ".v"))]
    inner = [(a, b[:-2]) for a, b in edges if b != "logits"]
    assert all(Head.parse(a).layer < Head.parse(b).layer for a, b in inner)
    # 2 previous x 4 induction x k, v, and so on; 13 heads to the logits.
    assert len(edges) == 2 * 4 * 2 + (4 + 3) * 4 * 2 + 4 * 13 + 13


def test_classes_of_another_model() -> None:
    circuit = circuit_of_classes({"name mover": ["4.1"], "S-inhibition": ["3.0", "4.2"]})
    assert circuit.edges == (("3.0", "4.1.q"), ("4.1", "logits")), "4.2 is not earlier than 4.1"
    with pytest.raises(ValueError, match=r"4\.1 is there twice"):
        circuit_of_classes({"name mover": ["4.1"], "induction": ["4.1"]})
    with pytest.raises(ValueError, match=r"classes must be among name mover, .* got 'mover'"):
        circuit_of_classes({"mover": ["4.1"]})


def test_circuits_go_through_files(tmp_path) -> None:
    circuit = published_circuit()
    found = load_circuit(save_circuit(circuit, tmp_path / "deep" / "circuit.json"))
    assert found.roles == circuit.roles and found.classes == circuit.classes
    assert found.edges == circuit.edges
    plain = Circuit({"1.1": "END"})
    assert circuit_to_dict(circuit_from_dict(circuit_to_dict(plain))) == circuit_to_dict(plain)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "a circuit must be an object with 'heads', got list"),
        ("{}", "a circuit must have 'heads'"),
        ('{"heads": {"1.1": "END"}, "nodes": []}', "got ['heads', 'nodes']"),
        ('{"heads": {"1.1": 5}}', "heads[1.1] must be a role"),
        ('{"heads": {"1.1": "END", "1.1": "S2"}}', "'1.1' is given twice"),
        ('{"heads": {"1.1": "END"}, "edges": [["0.0", "logits"]]}', "0.0 is not in the circuit"),
        ("{", "Expecting"),
    ],
)
def test_files_that_hold_no_circuit_are_named(text: str, message: str, tmp_path) -> None:
    path = tmp_path / "circuit.json"
    path.write_text(text)
    with pytest.raises(ValueError) as caught:
        load_circuit(path)
    assert str(path) in str(caught.value) and message in str(caught.value)


def test_a_file_keeps_the_order_of_classes(tmp_path) -> None:
    path = save_circuit(published_circuit(), tmp_path / "circuit.json")
    listed = json.loads(path.read_text())["classes"]["backup name mover"]
    assert listed == ["10.10", "10.6", "10.2", "10.1", "11.2", "9.7", "9.0", "11.9"]


def test_minimality_sets_of_the_released_code() -> None:
    sets = minimality_sets(published_circuit())
    chain = ["9.9", "10.0", "9.6", "10.10", "10.6", "10.2", "10.1", "11.2", "9.7"]
    for place, head in enumerate(chain):
        assert set(sets[Head.parse(head)]) == heads(" ".join(chain[:place]))
    movers = heads("9.9 10.0 9.6 10.10 10.6 10.2 10.1 11.2 9.7 9.0 11.9")
    for head in heads("9.0 11.9"):
        assert {head, *sets[head]} == movers | heads("10.7 11.10")
    for group in ("10.7 11.10", "7.3 7.9 8.6 8.10", "0.1 0.10 3.0", "2.2 4.11"):
        for head in heads(group):
            assert {head, *sets[head]} == heads(group)
    for head in heads("5.5 6.9"):
        assert {head, *sets[head]} == heads("5.5 6.9 5.8 5.9")
    for head in heads("5.8 5.9"):
        assert set(sets[head]) == heads("10.7 11.10")
    asked = {frozenset(s) for h, others in sets.items() for s in (others, (*others, h))}
    assert len(sets) == 26 and len(asked) == 33, "33 distinct ablation sets"


def test_minimality_sets_of_the_printed_table() -> None:
    code, printed = (minimality_sets(published_circuit(), order) for order in ("code", "printed"))
    changed = {head for head in code if set(code[head]) != set(printed[head])}
    assert changed == heads("10.10 10.6 10.2 10.1 11.2 9.7 9.0 11.9")
    assert set(printed[Head.parse("11.2")]) == heads("9.9 10.0 9.6")
    assert set(printed[Head.parse("10.1")]) == heads("9.9 10.0 9.6 11.2 10.6 10.10 10.2 9.7")
    assert set(printed[Head.parse("9.0")]) == heads("9.9 10.0 9.6 11.9")


def test_minimality_sets_of_other_circuits_follow_from_classes() -> None:
    circuit = circuit_of_classes({"name mover": ["4.1", "4.0"], "induction": ["2.1", "2.2"]})
    sets = minimality_sets(circuit)
    assert sets == {
        Head(4, 1): (),
        Head(4, 0): (Head(4, 1),),
        Head(2, 1): (Head(2, 2),),
        Head(2, 2): (Head(2, 1),),
    }
    with pytest.raises(ValueError, match="order must be one of code, printed, got 'mine'"):
        minimality_sets(circuit, "mine")
    with pytest.raises(ValueError, match=r"1\.1 is in no class"):
        minimality_sets(Circuit({"1.1": "END"}))
