"""Path patching under knock-outs where new prompts have other roles and lengths, against hooks."""

from __future__ import annotations

import pytest
import torch
from ablation_oracle import Replacement, aligner, cells
from compare import STORED, assert_close
from hook_oracle import HookedModel, logit_diff, path_patched_logits
from small_models import moved_pairs, shifted_pairs, tiny_model
from torch import Tensor

from ioi_fast import PromptPairs, path_patch

EXACT = {"backend": "reference", "precision": "fp64"}

PROMPTS = {
    "roles elsewhere": moved_pairs,
    "longer new": shifted_pairs,
    "shorter new": lambda seed: shifted_pairs(seed=seed).swapped(),
}
# 1.0 and mlp0 are knocked out themselves: what they send is the new run's under the knock-outs.
SENDERS = [["0.1"], ["1.0"], ["mlp0"], ["mlp1"], ["0.2", "1.1"], ["2.2", "mlp0"]]
# Where senders write and receivers are overwritten: at a role at which the receivers matter.
RECEIVERS = {
    "logits": (None, "END"),
    "queries": (["1.0.q", "2.1.q", "2.2.q"], "END"),
    "keys": (["1.1.k", "2.0.k", "2.2.k"], "S2"),
    "values": (["1.1.v", "2.0.v"], "S1"),
    "all kinds": (["1.1.q", "2.0.k", "2.2.v", "mlp1"], "S2"),
}


def knock_outs(name: str, source: str) -> dict[str, str]:
    """Heads and MLPs at several roles, everywhere too where the source allows it."""
    chosen = {"0.0": "S1", "1.0": "END", "2.1": "END", "mlp0": "S2"}
    if name == "shorter new" and source.startswith("mean"):
        # No new prompt reaches END of these originals, so there is no mean to take.
        chosen = {"0.0": "S1", "1.0": "S2", "2.1": "S2", "mlp0": "S2"}
    elif source != "new":  # which is not defined everywhere where a role stands elsewhere
        chosen |= {"1.2": "all", "mlp1": "all"}
    return chosen


def expected(
    hooked: HookedModel,
    pairs: PromptPairs,
    receivers: list[str] | None,
    role: str,
    between: str,
    replacement: Replacement,
    knock_out: dict[str, str],
) -> tuple[Tensor, Tensor]:
    """The base metric [N] and what each sender changes [S, N]."""
    answers = (pairs.end, pairs.answers, pairs.wrong_answers)
    edits = {run: replacement.variant(knock_out, run) for run in ("orig", "new")}
    values = []
    for sender in SENDERS:
        base, patched = path_patched_logits(
            hooked,
            pairs.orig,
            pairs.new,
            sender,
            receivers,
            cells(pairs, role),
            aligner(pairs, role),
            between,
            lambda run: list(edits[run]),
        )
        values.append(logit_diff(patched, *answers) - logit_diff(base, *answers))
    return logit_diff(base, *answers), torch.stack(values)


@pytest.mark.parametrize("between", ["mlps", "nothing"])
@pytest.mark.parametrize("source", ["zero", "mean", "mean_by_form", "new"])
@pytest.mark.parametrize("kind", list(RECEIVERS))
@pytest.mark.parametrize("name", list(PROMPTS))
def test_path_patch_under_knock_outs(name: str, kind: str, source: str, between: str) -> None:
    model, pairs = tiny_model(seed=71), PROMPTS[name](seed=72)
    receivers, role = RECEIVERS[kind]
    knock_out = knock_outs(name, source)
    result = path_patch(
        model,
        pairs,
        SENDERS,
        receivers or "logits",
        role,
        between,
        knock_out=knock_out,
        knock_out_source=source,
        **EXACT,
    )
    hooked = HookedModel(model)
    replacement = Replacement(hooked, pairs, source)
    base, values = expected(hooked, pairs, receivers, role, between, replacement, knock_out)
    assert values.any()
    assert_close(result.values, values, STORED)
    assert_close(result.base, base, STORED, what="base")
