"""The plan of ablations and activation patches: cells, shared states, FLOPs, blocks."""

from __future__ import annotations

import itertools
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import ragged_pairs, shifted_pairs, tiny_model

from ioi_fast import Circuit, GPT2Config, ablate, activation_patch, explain
from ioi_fast.asked.nodes import Head
from ioi_fast.engine.ops import Ops
from ioi_fast.plan.fit_to_memory import Budget
from ioi_fast.plan.flops import FlopCount
from ioi_fast.plan.rerun_variants import Change, RerunPrompt, RerunVariant, shared_states
from ioi_fast.plan.reruns import RerunPlan, plan_reruns

SMALL = GPT2Config(n_layer=3, n_head=2, n_embd=8, n_inner=16, vocab_size=50, n_positions=16)
NAMES = ("END", "S2", "all")


def prompt(end: int = 6, s2: int = 3) -> RerunPrompt:
    return RerunPrompt(end, end, (end, s2, -1), (end, s2, -1))


def head(layer: int, index: int, position: str = "END", site: str = "z") -> Change:
    return Change(layer, site, index, position)


def planned(
    *variants: tuple[Change, ...], prompts=None, max_memory: int | None = None, **more: object
) -> RerunPlan:
    asked = {"source": "zero"} | more
    plan = plan_reruns(SMALL, prompts or [prompt()], NAMES, variants, **asked)
    budget = Budget(max_memory)
    return budget.counted(budget.fitted(plan))


def test_cells_are_those_from_the_first_change_on() -> None:
    plan = plan_reruns(SMALL, [prompt()], ("S2",), [(head(1, 0, "S2"),)], source="zero")
    assert plan.cells(RerunPrompt(6, 6, (3,), (3,))) == (3, 4, 5, 6)
    assert plan.cells(RerunPrompt(6, 8, (7,), (7,))) == (6,), (
        "a change after END matters to nothing"
    )
    assert plan.cells(RerunPrompt(6, 6, (-1,), (-1,))) == tuple(range(7))


def test_new_goes_by_itself_only_where_a_position_stands_elsewhere() -> None:
    moved = RerunPrompt(6, 6, (6, 3, -1), (6, 4, -1))
    plan = planned((head(0, 0, "S2"),), (head(1, 0),), prompts=[prompt(), moved], source="new")
    assert plan.runs_of_new([prompt()]) == (False, True)
    assert plan.runs_of_new([prompt(), moved]) == plan.runs_of_new([moved]) == (True, True)
    only = RerunPrompt(6, 6, (3,), (4,))
    plan = plan_reruns(SMALL, [only], ("S2",), [(head(1, 0, "S2"),)], source="new")
    assert plan.runs_of_new([only]) == (True, False)
    circuit = planned((head(0, 0, "S2"),), source="new", roles={Head(0, 0): ("S2",)})
    assert circuit.runs_of_new([prompt()]) == (True, False)
    assert planned((head(0, 0, "S2"),)).runs_of_new([moved]) == (False, False)


def test_in_a_circuit_cells_are_its_roles_and_changed_mlps() -> None:
    roles = {Head(0, 0): ("S2",), Head(2, 1): ("END",)}
    circuit = {"roles": roles}
    assert planned((head(0, 0, "S2"),), **circuit).cells(prompt()) == (3, 6)
    everything = planned((Change(1, "mlp_out", -1, "all"),), **circuit)
    assert everything.cells(prompt()) == tuple(range(7))


def test_a_head_at_several_roles_has_its_keys_and_values_once() -> None:
    """One head of layer 1 after a change of layer 0 at S2: asked at END, at S2, and at both."""
    change, D, K = (head(0, 0, "S2"),), SMALL.n_embd, SMALL.d_head
    layer = {}
    for kept in (("END",), ("S2",), ("S2", "END")):
        roles = {Head(0, 0): ("S2",), Head(1, 0): kept}
        counted = FlopCount(SMALL, 6, {"END": 6, "S2": 3}, roles)
        begun = counted.step(0, frozenset(), change)
        layer[kept] = counted.step(1, begun.cells, ())
    inputs, query, write = 4 * D * K, 2 * D * K, 2 * D * K
    attention = {kept: step.flops - step.rows * 4 * D * SMALL.d_mlp for kept, step in layer.items()}
    assert attention["END",] == inputs + write, "the change stands before END, whose query stays"
    assert attention["S2",] == inputs + query + write
    assert attention["S2", "END"] == inputs + query + 2 * write
    assert layer["S2", "END"].cells == {3, 6}


def test_variants_that_begin_first_come_first_and_like_ones_together() -> None:
    a, b, c = head(0, 0), head(1, 0), head(1, 1)
    plan = planned((b,), (a, c), (c,), (a,), (), (a, b))
    order = [variant.index for variant in plan.variants]
    assert plan.asked == 6 and 4 not in order and set(order[:3]) == {1, 3, 5}
    assert [v.start for v in plan.variants] == sorted(v.start for v in plan.variants)


CHANGES = st.builds(head, st.integers(0, 2), st.integers(0, 1), st.sampled_from(NAMES))


@settings(max_examples=200)
@given(st.lists(st.frozensets(CHANGES, min_size=1, max_size=4), min_size=1, max_size=12))
def test_states_are_shared_exactly_by_variants_that_are_alike_so_far(sets: list) -> None:
    plan = planned(*(tuple(changes) for changes in sets))
    layers, final = shared_states(plan.variants, 3)
    states = {variant: 0 for variant in range(len(plan.variants))}
    for layer, found in enumerate(layers):
        assert list(found.variants) == sorted(found.variants), "the first to begin comes first"
        paths = [
            frozenset(c for c in variant.changes if c.layer <= layer) for variant in plan.variants
        ]
        assert len(found.variants) == len(set(paths))
        lookup = {paths[row]: state for state, row in enumerate(found.variants)}
        for state, row in enumerate(found.variants):
            assert found.parents[state] == states[row]
        states = {row: lookup[path] for row, path in enumerate(paths)}
    assert [states[row] for row in range(len(final))] == final


def test_flops_by_hand() -> None:
    """z of one head of layer 1 at S2 = 3, END = 6: its write and MLP 1 there; then layer 2."""
    D, F, K = 8, 16, 4
    plan = planned((head(1, 0, "S2"),))
    runs = sum(7 * 4 * D * D + n * (4 * D * D + 4 * D * F) for n in (7, 7, 1))
    first = 2 * K * D + 4 * D * F
    last = 1 * 4 * D * D + 0 * 2 * D * D + 2 * D * D + 4 * D * F
    assert plan.flops == runs + first + last + 2 * 2 * D
    assert plan.rows == [0, 1, 1]
    twice = planned((head(1, 0, "S2"),), prompts=[prompt(), prompt()])
    assert twice.flops == 2 * plan.flops
    with_logits = planned((head(1, 0, "S2"),), vocabulary=9)
    assert with_logits.flops - plan.flops == 2 * 2 * D * 49


def test_shared_layers_are_counted_once() -> None:
    common, ends = head(0, 0, "S2"), [head(2, 0), head(2, 1)]
    both = planned(*((common, end) for end in ends))
    assert both.rows == [1, 4, 2], "layers 0 and 1 are one state"


@settings(max_examples=50)
@given(data=st.data())
def test_rows_are_those_that_run(data: st.DataObject) -> None:
    """Rows of the MLP in the plan are those that the kernel is given, over model and circuit."""
    model, pairs = tiny_model(), ragged_pairs(3)
    base = data.draw(
        st.sampled_from(["model", Circuit({"0.1": "S2", "1.0": "END", "2.2": "END", "1.2": "S2"})])
    )
    key = st.sampled_from(["0.1", "0.0", "1.0", "1.2", "2.2", "mlp0", "mlp1", "mlp2"])
    role = st.sampled_from(["END", "S2", "all"])
    sets = data.draw(st.lists(st.dictionaries(key, role, max_size=3), min_size=1, max_size=5))
    variants = [dict(one) for one in {frozenset(one.items()): one for one in sets}.values()]
    if isinstance(base, Circuit):
        # A change that the base has already makes no difference: the engine sees that, a plan not.
        inside = {"0.1": "S2", "1.0": "END", "2.2": "END", "1.2": "S2"}
        variants = [
            {k: inside.get(k, r) for k, r in one.items() if k in inside or k.startswith("mlp")}
            for one in variants
        ]
        variants = [dict(one) for one in {frozenset(one.items()): one for one in variants}.values()]
    plan = explain(ablate, model, pairs, variants=variants, source="zero", base=base)
    given_rows = []
    table = {name: getattr(OPS, name) for name in Ops.__slots__}
    spies = {name: partial(count_rows, given_rows, name) for name in ("mlp_delta", "add_mlp_delta")}
    spied = Ops(**{**table, **spies})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ioi_fast.engine.choose_ops.cpu", lambda precision: spied)
        ablate(model, pairs, variants, "zero", base)
    assert sum(given_rows) <= sum(plan.rows)
    if not any(r == "all" or k.startswith("mlp") for one in variants for k, r in one.items()):
        assert sum(given_rows) == sum(plan.rows)


def count_rows(found: list, name: str, resid_mid, pre, delta, *rest):
    found.append(delta[..., 0].numel())
    return getattr(OPS, name)(resid_mid, pre, delta, *rest)


def _torch_table() -> Ops:
    from ioi_fast.engine.choose_ops import plain_torch

    return plain_torch()


OPS = _torch_table()


@pytest.mark.parametrize("source", ["zero", "mean", "new"])
def test_explain_prints_a_plan_without_running(source: str) -> None:
    model, pairs = tiny_model(), ragged_pairs()
    variants = [{"0.1": "END"}, {"mlp1": "all"}, {}]
    plan = explain(ablate, model, pairs, variants=variants, source=source)
    printed = str(plan)
    assert "3 variants (2 change something), 4 prompts" in printed and "over the model" in printed
    assert "GFLOP" in printed and "MiB at the peak" in printed and source in printed
    assert plan.flops > 0 and plan.peak_bytes > 0
    each = explain(activation_patch, model, pairs, site="resid_pre", position="each")
    assert each.asked == 3 * 7 and "source='new'" in str(each)
    shifted = explain(ablate, model, shifted_pairs(), variants=[{"0.1": "END"}], source=source)
    assert shifted.flops > 0


def test_a_circuit_costs_less_than_the_model() -> None:
    model, pairs = tiny_model(), ragged_pairs()
    circuit = Circuit({"0.1": "S2", "1.0": "END"})
    asked = {"variants": [{"0.1": "S2"}], "source": "zero"}
    inside = explain(ablate, model, pairs, base=circuit, **asked)
    assert inside.flops < explain(ablate, model, pairs, **asked).flops
    assert "a circuit of 2 heads" in str(inside)


@settings(max_examples=100)
@given(
    ends=st.lists(st.integers(1, 9), min_size=1, max_size=40),
    budget=st.integers(20_000, 3_000_000),
)
def test_a_memory_budget_is_kept_or_refused(ends: list[int], budget: int) -> None:
    prompts = [RerunPrompt(end, end, (end, 0, -1), (end, 0, -1)) for end in ends]
    try:
        plan = planned((head(0, 0),), prompts=prompts, max_memory=budget)
    except ValueError as error:
        assert "max_memory must be at least" in str(error)
        return
    assert plan.peak_bytes <= budget
    placed = sorted(itertools.chain.from_iterable(plan.prompt_blocks))
    assert placed == list(range(len(ends)))


def test_a_variant_says_what_it_changes_in_a_layer() -> None:
    variant = RerunVariant(0, (head(0, 1), head(2, 0)))
    assert variant.at(0) == (head(0, 1),) and variant.at(1) == () and variant.start == (0, 1)
    assert RerunVariant(0, (Change(1, "resid_pre", -1, "END"),)).start == (1, 0)
