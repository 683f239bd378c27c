"""Experiments that look at heads: what they attend to, write and copy (E2 to E8, E17, E18)."""

from __future__ import annotations

import torch

from ioi_fast.ioi import circuits
from ioi_fast.ioi.attending import Attending, Writing, attending, writing
from ioi_fast.ioi.copying import copy_scores
from ioi_fast.ioi.finding import Finding
from ioi_fast.ioi.published_figures import PUBLISHED
from ioi_fast.ioi.repeats import repeat_scores, repeated_tokens
from ioi_fast.ioi.study import Study
from ioi_fast.ioi.verdicts import Scale
from ioi_fast.report.figures import BarList, HeatMap, Scatter, Table


def _attention_table(found: Attending, title: str, caption: str) -> Table:
    rows = []
    for index, head in enumerate(found.heads):
        means = [round(float(found.mean(role)[index]), 3) for role in found.roles]
        rows.append([str(head), *means])
    return Table(title, caption, ["head", *found.roles], rows)


def _over_heads(found: Attending, role: str) -> tuple[float, float]:
    """Mean attention to a role over heads and prompts, and its standard error over prompts."""
    own = found.weights[:, found.roles.index(role)].double().mean(0)
    return float(own.mean()), float(own.std()) / len(own) ** 0.5


def mover_attention(study: Study) -> Finding:
    """E2: name movers attend to IO, and on p_ABC prompts to both first names alike."""
    heads = study.heads(circuits.MOVERS)
    orig = attending(study.model, study.pairs, heads, **study.looking)
    new = attending(study.model, study.pairs, heads, run="new", **study.looking)
    to_io, error = _over_heads(orig, "IO")
    first = float((new.mean("IO") - new.mean("S1")).abs().mean())
    name = "attention from END to IO"
    measures = (
        study.scale.measure(name, to_io, PUBLISHED["E2"][name], error),
        study.scale.plain("|IO − S1| on p_ABC", first),
    )
    figures = (
        _attention_table(orig, "Name movers on p_IOI", "Mean attention from END."),
        _attention_table(new, "Name movers on p_ABC", "Mean attention from END."),
    )
    return Finding("E2", "what name movers attend to", measures, figures)


def writing_direction(study: Study) -> Finding:
    """E3: movers write along the name that they attend to, negative ones against it."""
    movers = study.heads(circuits.MOVERS)
    negative = map(str, circuits.members(study.circuit, circuits.NEGATIVES))
    found = writing(study.model, study.pairs, [*movers, *negative])
    scale, measures = study.scale, []
    rows = zip(
        map(str, found.heads), found.correlation.tolist(), found.stderr().tolist(), strict=True
    )
    for head, value, error in rows:
        name = circuits.MOVERS if head in movers else circuits.NEGATIVES
        published = PUBLISHED["E3"][f"correlation of a {name}"]
        measures.append(scale.measure(f"correlation of {head}", value, published, error))
    return Finding(
        "E3", "attention and what is written", tuple(measures), (_points(found, movers),)
    )


def _points(found: Writing, movers: list[str]) -> Scatter:
    """The paper's figure 3c: a point a head, prompt and name."""
    N = found.probability.shape[1] // 2
    named = [(str(head), name) for head in found.heads for name in ("IO", "S")]
    return Scatter(
        "Attention to a name and what is written along it",
        "A point for every prompt, of END's attention to a name and the head's output there times "
        "the name's unembedding (folded weights, no LayerNorm).",
        found.probability.flatten().tolist(),
        found.projection.flatten().tolist(),
        [f"{head} {name}, prompt {n}" for head, name in named for n in range(N)],
        [_kind(head in movers, name) for head, name in named for _ in range(N)],
        x_axis="attention",
        y_axis="⟨output, W_U[name]⟩",
    )


def _kind(mover: bool, name: str) -> str:
    return f"{circuits.MOVERS if mover else circuits.NEGATIVES}, {name}"


def copying(study: Study) -> Finding:
    """E4 and E5: copy scores of all heads, with both signs."""
    found, scale, published = copy_scores(study.model, study.pairs), study.scale, PUBLISHED["E4"]
    means = {"copy score, all heads": found.copies, "negative, all heads": found.negative}
    measures = [
        scale.measure(name, float(scores.mean()), published[name]) for name, scores in means.items()
    ]
    for name, kind, scores in (
        (circuits.MOVERS, "copy score", found.copies),
        (circuits.NEGATIVES, "negative copy score", found.negative),
    ):
        row = published[f"{kind} of a {name}"]
        for head in () if study.circuit is None else circuits.members(study.circuit, name):
            value = float(scores[head.layer, head.head])
            error = (value * (1 - value) / found.names) ** 0.5
            measures.append(scale.measure(f"{kind} of {head}", value, row, error))
    bars = BarList(
        "Copy scores of movers and of all heads",
        "Share of names within the five most likely tokens of what a head makes of them.",
        [one.name for one in measures],
        [float(one.value) for one in measures],
        stderr=[one.error for one in measures],
    )
    maps = (
        _head_map(found.copies, "Copy scores"),
        _head_map(found.negative, "Negative copy scores"),
    )
    return Finding("E4", "copy scores", tuple(measures), (bars, *maps))


def _head_map(scores: torch.Tensor, title: str) -> HeatMap:
    L, H = scores.shape
    return HeatMap(
        title,
        "",
        scores.tolist(),
        row_labels=[str(layer) for layer in range(L)],
        column_labels=[str(head) for head in range(H)],
    )


def mover_attention_after(study: Study) -> Finding:
    """E7: without what S-inhibition heads say, movers attend to S1 more and to IO less."""
    movers, tellers = study.heads(circuits.MOVERS), study.tellers()
    after = {
        "senders": [list(tellers.heads)],
        "receivers": [f"{head}.{tellers.site}" for head in movers],
        "position": tellers.role,
    }
    running = study.looking
    base = attending(study.model, study.pairs, movers, **running)
    moved = attending(study.model, study.pairs, movers, after=after, **running)
    measures = []
    for role in ("IO", "S1"):
        index = base.roles.index(role)
        change = (moved.weights - base.weights)[:, index].double().mean(0)
        error = float(change.std() / len(change) ** 0.5)
        name = f"change of attention to {role}"
        published = PUBLISHED["E7"][name]
        measures.append(study.scale.measure(name, float(change.mean()), published, error))
    figures = (
        _attention_table(base, "Name movers before", "Mean attention from END."),
        _attention_table(moved, "Name movers after", "Mean attention from END."),
    )
    title = f"name movers without the {tellers.place}"
    return Finding("E7", title, tuple(measures), figures)


def inhibition_attention(study: Study) -> Finding:
    """E8: S-inhibition heads attend to S2."""
    tellers = study.tellers()
    found = attending(study.model, study.pairs, tellers.heads, tellers.role, **study.looking)
    (to_s2, error), name = _over_heads(found, "S2"), f"attention from {tellers.role} to S2"
    measure = study.scale.measure(name, to_s2, PUBLISHED["E8"]["attention to S2"], error)
    caption = f"Mean attention from {tellers.role}."
    figure = _attention_table(found, f"{tellers.name} heads", caption)
    return Finding("E8", f"what {tellers.place} attend to", (measure,), (figure,))


def repeated(study: Study) -> Finding:
    """E17 and E18: scores on random tokens that are said twice."""
    length = min(100, study.model.config.n_positions // 2)
    sequences = 4 if study.quick else 16
    tokens = repeated_tokens(study.model, sequences, length, seed=int(study.drawn.get("seed", 0)))
    found = repeat_scores(study.model, tokens)
    scale = Scale(sequences, study.scale.applicable)
    first = {
        "previous token": found.ranking("previous")[:2],
        "induction": found.ranking("induction")[:5],
        "duplicate token": found.ranking("duplicate")[:3],
        "copying of what came next": found.ranking("copying")[:20],
    }
    measures = tuple(
        scale.measure(name, list(map(str, heads)), PUBLISHED["E17"][name])
        for name, heads in first.items()
    )
    figures = tuple(
        _head_map(getattr(found, name), f"{name} scores on repeated random tokens")
        for name in ("previous", "duplicate", "induction", "copying")
    )
    return Finding(
        "E17", f"{sequences} sequences of {length} tokens, said twice", measures, figures
    )
