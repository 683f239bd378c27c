"""One head or MLP at several roles, when they stand on one token of orig and on others of new."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from compare import assert_sweep
from small_models import ragged_pairs, tiny_model

from ioi_fast import PromptPairs, ablate, attention, explain, path_patch

BACKENDS = ["reference", "cpu"]


def parting(apart: bool = True) -> PromptPairs:
    """Roles A and B on token 1 of prompt 2; in new B stands on token 2 there, if they part."""
    plain = ragged_pairs()
    A = torch.tensor([0, 1, 1, 0])
    B = torch.tensor([1, 2, 1, 2])
    positions = {"END": plain.end, "A": A, "B": B}
    in_new = B + (torch.arange(4) == 2) if apart else B.clone()
    fields = {name: getattr(plain, name) for name in ("orig", "new", "answers", "wrong_answers")}
    return PromptPairs(**fields, positions=positions, new_positions={**positions, "B": in_new})


def ablated(pairs: PromptPairs, **how: object):
    return ablate(tiny_model(), pairs, [{"0.1": "A"}, {"0.1": ["A", "B"], "mlp1": "B"}], **how)


def knocked_out(pairs: PromptPairs, source: str, **how: object):
    knock_out = {"mlp0": ["B", "A"], "1.0": "END"}
    asked = {"knock_out": knock_out, "knock_out_source": source}
    return path_patch(tiny_model(), pairs, ["0.0", "1.1"], ["2.1.q"], **asked, **how)


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_values_for_one_output_are_refused(backend: str) -> None:
    pairs = parting()
    where = r"in prompt 2, where {} and {} both stand at 1 in orig, and at {} and {} in new"
    with pytest.raises(ValueError, match=r"^source='new': 0\.1 .* " + where.format("A", "B", 1, 2)):
        ablated(pairs, source="new", backend=backend)
    message = r"^knock_out_source='new': mlp0 .* " + where.format("B", "A", 2, 1)
    with pytest.raises(ValueError, match=message):
        knocked_out(pairs, "new", backend=backend)
    after = {
        "senders": ["0.0"],
        "knock_out": {"0.2": ["A", "B"]},
        "knock_out_source": "new",
    }
    with pytest.raises(ValueError, match=r"^knock_out_source='new': 0\.2 would take two values"):
        attention(tiny_model(), pairs, ["1.1"], after=after, backend=backend)


def test_a_plan_refuses_them_too() -> None:
    with pytest.raises(ValueError, match=r"^source='new': 1\.1 would take two values in prompt 2"):
        explain(ablate, tiny_model(), parting(), variants=[{}, {"1.1": ["A", "B"]}], source="new")


@pytest.mark.parametrize("call", [ablated, knocked_out])
@pytest.mark.parametrize("source", ["zero", "mean", "new"])
def test_where_new_agrees_and_for_other_sources_there_is_one_value(
    call: Callable, source: str
) -> None:
    """Other sources take no value by role, and roles that stay together take one."""
    pairs = parting(apart=source != "new")
    truth = call(pairs, source=source, backend="reference", precision="fp64")
    fast = call(pairs, source=source, backend="cpu")
    assert truth.values.any() and fast.backend.startswith("cpu/")
    assert_sweep(fast.values, truth.values)


def test_each_role_alone_takes_its_own_value() -> None:
    model, pairs = tiny_model(), parting()
    asked = {"variants": [{"0.1": "A"}, {"0.1": "B"}], "source": "new"}
    truth = ablate(model, pairs, **asked, backend="reference", precision="fp64").values
    assert (truth[0] - truth[1]).abs()[2] > 1e-3
    assert_sweep(ablate(model, pairs, **asked, backend="cpu").values, truth)
