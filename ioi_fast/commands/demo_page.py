"""The demo as figures: tables, heat-maps, attention and provenance, for terminal, page and JSON."""

from __future__ import annotations

import torch
from torch import Tensor

from ioi_fast.commands.demo_study import Study
from ioi_fast.report.figures import AttentionMap, Page, Section, Table
from ioi_fast.report.sweeps import heads_heat_map, ranking_bars
from ioi_fast.results.result import Result
from ioi_fast.results.revision import revision

_RANKED = 8


def demo_page(study: Study, drawn: dict[str, object]) -> Page:
    """The page of a study; `drawn` says how its prompts were drawn (seed, forms, …)."""
    return Page(
        title="Which heads carry the answer?",
        lead=_lead(study),
        sections=_sections(study),
        provenance={**_provenance(study), **drawn},
    )


def demo_figures(study: Study) -> dict[str, object]:
    """Every figure of a study as plain data for JSON."""
    check, found = study.check, study.score
    return {
        "behaviour": {name: getattr(found, name) for name in type(found).__slots__},
        "to_logits": study.to_logits.to_dict(),
        "movers": list(study.movers),
        "to_queries": study.to_queries.to_dict() if study.to_queries else None,
        "behind": list(study.behind),
        "attention": [
            {"head": head, **dict(_by_role(study, index))} for index, head in enumerate(study.heads)
        ],
        "check": {
            "senders": list(check.senders),
            "fast": check.fast.tolist(),
            "slow": check.slow.tolist(),
            "error": check.error,
            "allowed": check.allowed,
            "agrees": study.agrees,
            "fast_seconds": check.fast_seconds,
            "slow_seconds": check.slow_seconds,
        },
    }


def _lead(study: Study) -> str:
    text = study.model.tokenizer.decode(study.pairs.orig[0, : int(study.pairs.end[0]) + 1].tolist())
    return (
        f"The model {study.model.name} reads prompts like “{text}” and should name the person who "
        "is mentioned once. Each head in turn is given the output it had on a prompt with other "
        "names, and the change flows to the logits along direct paths only: how much of the "
        "logit difference between the two names goes?"
    )


def _sections(study: Study) -> list[Section]:
    sections: list[Section] = [
        _behaviour(study),
        heads_heat_map(
            study.to_logits,
            "Heads to logits",
            "Every head patched at END; MLPs on the way recomputed, other heads frozen.",
        ),
        ranking_bars(study.to_logits, "Strongest senders to the logits", _RANKED),
    ]
    if study.to_queries is not None:
        movers = ", ".join(study.movers)
        sections += [
            heads_heat_map(
                study.to_queries,
                f"Heads to the queries of {movers}",
                "What tells the strongest movers where to look: heads patched at END, received by "
                "these queries together, everything after recomputed.",
            ),
            ranking_bars(study.to_queries, f"Strongest senders to the queries of {movers}", 6),
            _attention_table(study),
            *_attention_maps(study),
        ]
    return [*sections, _check_table(study)]


def _behaviour(study: Study) -> Table:
    found = study.score
    return Table(
        title="The model on these prompts",
        caption="Logit difference: logit of the right name − logit of the repeated name at END.",
        columns=["prompts", "accuracy", "logit difference", "± s.e.", "P(right name)"],
        rows=[
            [
                found.n,
                f"{found.accuracy:.1%}",
                round(found.logit_diff, 3),
                round(found.stderr, 3),
                round(found.probability, 3),
            ]
        ],
    )


def _weights_at_end(study: Study, index: int) -> Tensor:
    """Attention of a head from END, [N, T]."""
    rows = torch.arange(len(study.pairs))
    return study.patterns[index][rows, study.pairs.end]


def _by_role(study: Study, index: int) -> list[tuple[str, float]]:
    """Mean attention from END to each role."""
    weights = _weights_at_end(study, index).double()
    return [
        (role, float(weights.gather(1, at[:, None]).mean()))
        for role, at in study.pairs.positions.items()
    ]


def _attention_table(study: Study) -> Table:
    roles = list(study.pairs.positions)
    rows = []
    for index, head in enumerate(study.heads):
        weights = dict(_by_role(study, index))
        kind = "mover" if head in study.movers else "behind a mover"
        place, most = _most_attended(study, index)
        rows.append([kind, head, *(round(weights[role], 3) for role in roles), place, most])
    return Table(
        title="What each found head attends to",
        caption="Mean attention from END to the token of each role, and the place with most of it "
        "(a role, or so many tokens before END).",
        columns=["found as", "head", *roles, "most on", "weight"],
        rows=rows,
    )


def _most_attended(study: Study, index: int) -> tuple[str, float]:
    """The role or distance from END that gets most of a head's attention, and how much."""
    weights, end = _weights_at_end(study, index).double(), study.pairs.end
    places = dict(_by_role(study, index))
    for back in range(1, int(end.min()) + 1):
        at = (end - back)[:, None]
        places.setdefault(f"END−{back}", float(weights.gather(1, at).mean()))
    place = max(places, key=places.__getitem__)
    return place, round(places[place], 3)


def _attention_maps(study: Study) -> list[AttentionMap]:
    end = int(study.pairs.end[0])
    tokens = [study.model.tokenizer.decode([t]) for t in study.pairs.orig[0, : end + 1].tolist()]
    roles = {role: int(at[0]) for role, at in study.pairs.positions.items()}
    return [
        AttentionMap(
            title=f"Attention of {head} from END",
            tokens=tokens,
            weights=_weights_at_end(study, index)[0, : end + 1].tolist(),
            head=head,
            caption="First prompt.",
            roles=roles,
        )
        for index, head in enumerate(study.heads)
    ]


def _check_table(study: Study) -> Table:
    found = study.check
    rows = zip(found.senders, found.fast.tolist(), found.slow.tolist(), strict=True)
    reference = study.to_logits.backend == "reference"
    own = study.to_logits.precision if reference else "fast"
    return Table(
        title="Reference twice" if reference else "Fast against slow",
        caption=study.verdict,
        columns=["sender", own, "reference (float64)", "difference"],
        rows=[[s, f"{fast:.6f}", f"{slow:.6f}", f"{fast - slow:+.1e}"] for s, fast, slow in rows],
    )


def _provenance(study: Study) -> dict[str, object]:
    result: Result = study.to_logits
    return {
        **result.provenance,
        "backend": result.backend,
        "precision": result.precision,
        "commit": revision(),
    }
