"""Plans of made-up prompts for tests of the planner, with hypothesis strategies that draw them."""

from __future__ import annotations

from hypothesis import strategies as st

from ioi_fast import GPT2Config
from ioi_fast.asked.nodes import parse_senders
from ioi_fast.asked.receivers import parse_receivers
from ioi_fast.plan.fit_to_memory import Budget
from ioi_fast.plan.path_patch import PathPlan, plan_path_patch
from ioi_fast.plan.path_variants import PathPrompt

SMALL = GPT2Config()
TINY = GPT2Config(n_layer=3, n_head=2, n_embd=8, n_inner=20, vocab_size=31, n_positions=99)


def planned(
    config: GPT2Config,
    prompts,
    senders: object,
    max_memory: int | None = None,
    **settings: object,
) -> PathPlan:
    """The plan of senders as a caller writes them; between="mlps" and a logit difference."""
    settings = {"between": "mlps", "vocabulary": 0, "receivers": "logits", **settings}
    settings["receivers"] = parse_receivers(settings["receivers"], config)
    plan = plan_path_patch(config, prompts, parse_senders(senders, config), **settings)
    budget = Budget(max_memory)
    return budget.counted(budget.fitted(plan))


@st.composite
def prompts_of_all_kinds(
    draw: st.DrawFn, most: int = 12, at_end: bool = True, aligned: bool = False
) -> list[PathPrompt]:
    """Prompts patched at END, or (at_end=False) at any token up to it."""

    def one() -> PathPrompt:
        end = draw(st.integers(0, 20))
        at = end if at_end else draw(st.integers(0, end))
        new_at = at if aligned else draw(st.sampled_from([at, at, draw(st.integers(0, 20))]))
        live = draw(st.sampled_from([True, False]))
        return PathPrompt(end, new_at, draw(st.integers(0, at)), live, None if at_end else at)

    return [one() for _ in range(draw(st.integers(1, most)))]


@st.composite
def any_senders(draw: st.DrawFn) -> object:
    nodes = [f"{layer}.{head}" for layer in range(3) for head in range(2)]
    nodes += [f"mlp{layer}" for layer in range(3)]
    group = st.lists(st.sampled_from(nodes), min_size=1, max_size=4, unique=True)
    # Lists of groups; a group of one is a sender of its own.
    groups = st.lists(group, min_size=1, max_size=6, unique_by=frozenset)
    return draw(st.one_of(st.sampled_from(["heads", "mlps"]), groups))
