"""The paper's experiments on a model whose circuit was made by hand: what comes out is known."""

from __future__ import annotations

import pytest
from hand_made import hand_made_circuit, hand_made_model, hand_made_pairs

from ioi_fast.ioi.experiments import EXPERIMENTS
from ioi_fast.ioi.study import Study


@pytest.fixture(scope="module")
def study() -> Study:
    return Study.of_prompts(hand_made_model(), hand_made_pairs(60), hand_made_circuit())


def measured(study: Study, name: str) -> dict[str, float | str]:
    return {one.name: one.value for one in EXPERIMENTS[name](study).measures}


def first(study: Study, name: str, count: int) -> set[str]:
    return set(str(measured(study, name)["largest drops"]).split(", ")[:count])


def test_who_writes_and_who_tells_whom(study: Study) -> None:
    logits = measured(study, "E1")
    assert str(logits["largest drops"]).startswith("3.0")
    assert str(logits["largest rises"]).startswith("4.0")
    assert first(study, "E6", 1) == {"2.0"}, "movers are told by S-inhibition"
    assert first(study, "E11", 2) == {"0.1", "1.0"}, "and that by duplicate token and induction"
    assert first(study, "E15", 1) == {"0.0"}, "and induction by previous token"


def test_what_heads_attend_to(study: Study) -> None:
    movers = measured(study, "E2")
    assert movers["attention from END to IO"] > 0.97
    # Both names of an ABC prompt are as good, and differ from form to form in nothing.
    assert movers["|IO − S1| on p_ABC"] < 0.05
    assert measured(study, "E8")["attention from END to S2"] > 0.99
    after = measured(study, "E7")
    assert after["change of attention to IO"] < -0.4 < 0.4 < after["change of attention to S1"]


def test_what_heads_write(study: Study) -> None:
    written = measured(study, "E3")
    assert written["correlation of 3.0"] > 0.99 and written["correlation of 4.0"] < -0.99
    copied = measured(study, "E4")
    assert copied["copy score of 3.0"] == 1.0 and copied["negative copy score of 4.0"] == 1.0
    bars = EXPERIMENTS["E4"](study).figures[0]
    assert dict(zip(bars.labels, bars.values, strict=True)) == pytest.approx(copied)


def test_a_back_up_takes_the_movers_place(study: Study) -> None:
    found = measured(study, "E16")
    assert abs(found["change of F"]) < 0.05
    assert found["heads of more than 2 % that grew"] == "4.1"


def test_the_circuit_is_the_model(study: Study) -> None:
    assert measured(study, "E20")["F(C)/F(M)"] == pytest.approx(1.0, abs=0.01)
    completeness = measured(study, "E21")
    assert completeness["random sets, largest"] < 0.1 and completeness["greedy, largest"] < 0.1
    # All but the mover, whose set is empty: its back-up does as much.
    assert measured(study, "E22")["heads worth at least 1 % of F(M)"] == 6


def test_few_heads_matter(study: Study) -> None:
    found = measured(study, "E25")
    assert found["heads of at least 2% of F(M)"] == "3" and found["their share of all heads"] == 0.2
    assert found["of them attend to IO and S for the most part"] == "2", "the back-up rests"
