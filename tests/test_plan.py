"""The planner: rows, FLOPs and blocks against independent counts, without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import ragged_pairs, tiny_model
from small_plans import SMALL, TINY, any_senders, planned, prompts_of_all_kinds
from torch.utils.flop_counter import FlopCounterMode

import ioi_fast
from ioi_fast import explain, path_patch
from ioi_fast.asked.nodes import Head, Mlp, Sender, parse_senders
from ioi_fast.engine import choose_ops
from ioi_fast.kernels import packed_linear
from ioi_fast.plan.path_variants import PathPrompt

# Live with equal lengths, live with a shorter and a longer new prompt, not live.
KINDS = (
    PathPrompt(6, 6, 2, True),
    PathPrompt(6, 4, 1, True),
    PathPrompt(3, 5, 0, True),
    PathPrompt(4, 1, 0, False),
)


TORCH_FREE = """
import sys, types
sys.modules["torch"] = None  # any import of torch raises now
package = types.ModuleType("ioi_fast")
package.__path__ = [{path!r}]
sys.modules["ioi_fast"] = package
from ioi_fast.model.config import GPT2Config
from ioi_fast.plan.fit_to_memory import Budget
from ioi_fast.plan.path_patch import plan_path_patch
from ioi_fast.plan.path_variants import PathPrompt
from ioi_fast.asked.nodes import parse_senders
config = GPT2Config()
prompts, senders = [PathPrompt(15, 15, 3, True)] * 16, parse_senders("heads", config)
plan = plan_path_patch(config, prompts, senders, between="mlps", vocabulary=0)
print(Budget().counted(Budget(10**9).fitted(plan)))
"""


def test_the_planner_needs_no_torch() -> None:
    script = TORCH_FREE.format(path=str(Path(ioi_fast.__file__).parent))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    same = planned(SMALL, [PathPrompt(15, 15, 3, True)] * 16, "heads")
    assert done.stdout == f"{same}\n"


def test_gpt2_small_has_936_single_position_mlps_a_prompt() -> None:
    """Paper section 9: Σ_l 12·(12 − l) = 936 MLPs at END and 8.8 GFLOP for all 144 heads."""
    plan = planned(SMALL, [PathPrompt(16, 16, 2, True)], "heads")
    rows = [work.wave_rows for work in plan.layers()]
    assert rows == [12 * (layer + 1) for layer in range(12)] and sum(rows) == 936
    wave = planned(SMALL, [PathPrompt(16, 16, 2, True)], "heads").flops
    frozen = planned(SMALL, [PathPrompt(16, 16, 2, True)], "heads", between="nothing").flops
    assert wave - frozen == 936 * 4 * 768 * 3072
    assert round((wave - frozen) / 1e9, 1) == 8.8
    # Two passes of 17 tokens without unembedding: 5.7 GFLOP less what the cone leaves out.
    assert 4.5e9 < frozen < 5.7e9


@pytest.mark.parametrize(
    ("senders", "rows"),
    [
        ("heads", [2, 4, 6]),
        ("mlps", [0, 1, 2]),
        (["2.0", "0.1", "1.1", "mlp0"], [1, 3, 4]),
        # A group lives from its first node on and skips an MLP that is itself patched.
        ([["0.0", "mlp1", "2.1"]], [1, 0, 1]),
        ([["mlp0", "2.1"], ["mlp1", "0.1"]], [1, 1, 2]),
        ([["mlp0", "0.1"]], [0, 1, 1]),
        (["mlp2"], [0, 0, 0]),
    ],
)
def test_rows_by_layer(senders: object, rows: list[int]) -> None:
    prompts = [PathPrompt(4, 4, 1, True), PathPrompt(5, 5, 2, True), PathPrompt(5, 3, 0, False)]
    plan = planned(TINY, prompts, senders)
    assert [work.wave_rows for work in plan.layers()] == [2 * row for row in rows]
    assert [work.orig_rows for work in plan.layers()] == [5 + 6 + 6] * 3
    frozen = planned(TINY, prompts, senders, between="nothing")
    assert [work.wave_rows for work in frozen.layers()] == [0, 0, 0]


@pytest.mark.parametrize(
    ("senders", "until", "layers"),
    [("heads", (2, 0), 3), (["0.1"], (0, 0), 1), (["mlp1", "0.0"], (1, 1), 2), ("mlps", (2, 1), 3)],
)
def test_the_new_run_stops_where_nothing_more_is_read(
    senders: object, until: tuple, layers: int
) -> None:
    """Rows from the first change on where token matches token, all up to the match elsewhere."""
    plan = planned(TINY, KINDS, senders)
    assert plan.new_until == until
    rows = (6 + 1 - 2) + (4 + 1) + (5 + 1)
    assert [work.new_rows for work in plan.layers()] == [rows] * layers + [0] * (3 - layers)


def test_senders_are_ordered_by_first_layer_and_keep_their_places() -> None:
    senders = ["2.0", "mlp0", "0.1", ["1.1", "0.0"], "mlp1", "1.0", ["2.1", "mlp1"]]
    plan = planned(TINY, KINDS, senders)
    assert [str(variant.sender) for variant in plan.variants] == [
        "0.1",
        "1.1+0.0",
        "mlp0",
        "1.0",
        "mlp1",
        "2.1+mlp1",
        "2.0",
    ]
    assert [variant.index for variant in plan.variants] == [2, 3, 1, 5, 4, 6, 0]
    assert [variant.start for variant in plan.variants] == sorted(v.start for v in plan.variants)


def test_the_plan_prints_rows_bytes_and_flops() -> None:
    plan = planned(
        SMALL, [PathPrompt(15, 15, 3, True)] * 15 + [PathPrompt(15, 15, 3, False)], "heads"
    )
    text = str(plan)
    assert "144 senders, 16 prompts (15 live)" in text and "'mlps'" in text
    for work in plan.layers():
        cells = [work.layer, work.orig_rows, work.new_rows, work.wave_rows]
        row = [f"{cell:,}" for cell in cells] + [f"{work.flops / 1e9:.2f}"]
        assert row in [line.split() for line in text.splitlines()]
    assert f"{plan.flops / 1e9:.2f} GFLOP" in text
    assert f"{plan.peak_bytes / 2**20:.0f} MiB" in text
    assert "2 block(s) of prompts x 1 of senders" in text
    assert "answer columns" in text
    assert "every logit" in str(planned(SMALL, [KINDS[0]], "heads", vocabulary=9))


# ---- FLOPs, counted one cell and one product at a time ----


def counted_flops(config, prompts, senders: list[Sender], between: str, vocabulary: bool) -> int:
    """2·in·out of every product that some result depends on, found by walking all cells."""
    D, F, K, L = config.n_embd, config.d_mlp, config.d_head, config.n_layer
    read_out = 2 * D * (config.vocab_size if vocabulary else 1)
    heads = {node for sender in senders for node in sender.nodes if isinstance(node, Head)}
    mlps = {node for sender in senders for node in sender.nodes if isinstance(node, Mlp)}

    def run(first: int, end: int, wanted: set[tuple[str, int]]) -> int:
        """A run of tokens first..end of which only sites at END are wanted."""
        total = 0
        for layer in range(L):
            after = any(place[1] > layer for place in wanted)
            mlp_at_end = after or ("mlp", layer) in wanted
            query_at_end = mlp_at_end or ("z", layer) in wanted
            for token in range(first, end + 1):
                at_end = token == end
                total += 2 * (2 * D * D) * query_at_end  # k and v
                total += 2 * D * D * (query_at_end if at_end else after)  # q
                total += 2 * D * D * (mlp_at_end if at_end else after)  # o
                total += 2 * (2 * D * F) * (mlp_at_end if at_end else after)
        return total

    total = 0
    for prompt in prompts:
        total += run(0, prompt.end, {("mlp", L - 1)}) + read_out
        if not prompt.live:
            continue
        wanted = {("z", head.layer) for head in heads} | {("mlp", mlp.layer) for mlp in mlps}
        aligned = prompt.new_at == prompt.end
        total += run(prompt.first_changed if aligned else 0, prompt.new_at, wanted)
        total += 2 * K * D * len(heads)
        for sender in senders:
            total += read_out
            changed = False
            for layer in range(L):
                changed |= any(n == Head(layer, n.head) for n in sender.heads)
                if Mlp(layer) in sender.nodes:
                    changed = True
                elif changed and between == "mlps":
                    total += 2 * (2 * D * F)
    return total


@settings(max_examples=200)
@given(
    prompts=prompts_of_all_kinds(),
    senders=any_senders(),
    between=st.sampled_from(["mlps", "nothing"]),
    vocabulary=st.sampled_from([0, 9]),
)
def test_flops_are_those_of_the_cells_that_matter(prompts, senders, between, vocabulary) -> None:
    plan = planned(TINY, prompts, senders, between=between, vocabulary=vocabulary)
    listed = list(parse_senders(senders, TINY))
    assert plan.flops == counted_flops(TINY, prompts, listed, between, vocabulary)
    assert plan.flops == sum(work.flops for work in plan.layers()) + plan.readout_flops


MIXED = ["1.0.k", "1.2.v", "mlp1", "2.2.q"]
# How far the plan may be from what runs: attention of heads that only some variants changed runs
# for all; rows that turn out not to differ, such as a first token with another query, are planned
# but skipped; from the last layer other tokens than END are planned but never needed.
APART = {"logits": 0, "1.0.q": 0.03, "2.1.v": 0, "mlp1": 0, "mixed": 0.05, "ends": 0.05}


@pytest.mark.parametrize("between", ["mlps", "nothing"])
@pytest.mark.parametrize("position", ["END", "S2", 5, None])
@pytest.mark.parametrize("receivers", list(APART))
@pytest.mark.parametrize("senders", ["heads", "mlps", ["0.2", ["0.1", "mlp1"], "1.0"]], ids=str)
def test_the_products_that_run_are_those_of_the_plan(
    senders: object, receivers: str, position: object, between: str, monkeypatch
) -> None:
    """torch counts what it multiplies by weights; left out are δz·W_O of senders and the read-out.

    Batched products are attention and δz·W_O, which are counted by neither side here.
    """
    monkeypatch.setattr(packed_linear, "onednn_available", lambda: False)
    monkeypatch.setattr(choose_ops, "cpu", lambda precision: choose_ops.plain_torch())
    model, pairs = tiny_model(), ragged_pairs(N=7)
    chosen = {"mixed": MIXED, "ends": ["mlp0", "mlp2"], "logits": "logits"}.get(receivers)
    arguments = {
        "senders": senders,
        "receivers": chosen or [receivers],
        "position": position,
        "between": between,
    }
    plan = explain(path_patch, model, pairs, **arguments)
    with FlopCounterMode(display=False) as counter:
        path_patch(model, pairs, backend="cpu", **arguments)
    counts = counter.get_flop_counts()["Global"]
    run = counts.get(torch.ops.aten.mm, 0) + counts.get(torch.ops.aten.addmm, 0)
    heads = {head for variant in plan.variants for head in variant.sender.heads}
    cells = sum(plan.cells(prompt) for prompt in plan.prompts if prompt.live)
    written = sum(head.layer <= plan.new_until[0] for head in heads)
    writes = 2 * model.config.d_head * model.config.n_embd * written * cells
    planned_flops = plan.flops - plan.readout_flops - writes
    assert abs(run - planned_flops) <= APART[receivers] * run
