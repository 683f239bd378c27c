"""Where a path patch acts by default: at END, where END is what is read; else it has to be said."""

from __future__ import annotations

import pytest
import torch
from small_models import ragged_pairs, tiny_model

from ioi_fast import (
    PromptPairs,
    activation_patch,
    attention,
    explain,
    pair_sweep,
    path_patch,
)
from ioi_fast.cli import main

BACKENDS = ["reference", "cpu"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("receivers", ["logits", ["1.0.q"], ["1.0.q", "2.2.q"]], ids=str)
def test_logits_and_queries_are_read_at_end(receivers: object, backend: str) -> None:
    model, pairs = tiny_model(), ragged_pairs()
    found = path_patch(model, pairs, receivers=receivers, backend=backend)
    expected = path_patch(model, pairs, receivers=receivers, position="END", backend=backend)
    assert found.values.any() and torch.equal(found.values, expected.values)
    assert found.provenance["definition"]["position"] == "END"
    assert torch.equal(
        path_patch(model, pairs, "heads", receivers, "auto", backend=backend).values, found.values
    )


@pytest.mark.parametrize("receiver", ["1.0.k", "2.1.v", "mlp1"])
def test_others_have_to_be_given_a_position(receiver: str) -> None:
    model, pairs = tiny_model(), ragged_pairs()
    expected = (
        rf"^position: {receiver} needs a role, an int, a tensor or None .* END, serves the log"
    )
    for receivers in ([receiver], ["1.0.q", receiver]):
        for backend in BACKENDS:
            with pytest.raises(ValueError, match=expected):
                path_patch(model, pairs, receivers=receivers, backend=backend)
        with pytest.raises(ValueError, match=expected):
            explain(path_patch, model, pairs, receivers=receivers)
        with pytest.raises(ValueError, match=expected):
            attention(model, pairs, ["2.2"], after={"senders": ["0.0"], "receivers": receivers})
    # Named, END is a position as any other.
    for position in ("END", "S2", 1, pairs.positions["S1"], None):
        result = path_patch(model, pairs, ["0.0", "mlp0"], [receiver], position)
        assert result.values.any() or position == "END"


def test_keys_and_values_at_end_are_hardly_read() -> None:
    """Why END is no default for them: with 20 keys to read, it is a small part of what is there."""
    model, pairs = tiny_model(), ragged_pairs()
    at_end, everywhere = (
        path_patch(model, pairs, receivers=["2.0.v", "2.1.v"], position=position).effect.abs().max()
        for position in ("END", None)
    )
    assert everywhere > at_end


def test_auto_is_no_role_and_no_position_elsewhere() -> None:
    model, pairs = tiny_model(), ragged_pairs()
    for call in (activation_patch, pair_sweep):
        with pytest.raises(ValueError, match="position: the prompts have no role 'auto'"):
            call(model, pairs, position="auto")
    fields = {name: getattr(pairs, name) for name in ("orig", "new", "answers", "wrong_answers")}
    with pytest.raises(ValueError, match="positions: 'auto' can't be a role"):
        PromptPairs(**fields, positions={**pairs.positions, "auto": pairs.end})


def test_on_the_command_line(capsys: pytest.CaptureFixture) -> None:
    assert main(["path-patch", "--n", "4", "--receivers", "5.2.v", "--quiet"]) != 0
    assert "position: 5.2.v needs a role, an int, a tensor or None" in capsys.readouterr().err
    asked = ["path-patch", "--n", "4", "--senders", "0.1,1.3", "--receivers", "5.2.q", "--quiet"]
    assert main(asked) == 0
    assert "position auto" not in (printed := capsys.readouterr().out)
    assert main([*asked, "--position", "END"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == printed.splitlines()[0]
