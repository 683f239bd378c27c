"""Experiments that patch paths and sites: who writes for the answer, and who tells them (E1, E6,
E9 to E16, E19)."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from ioi_fast.asked.nodes import Head
from ioi_fast.calls.path_patch import path_patch
from ioi_fast.ioi import circuits
from ioi_fast.ioi.evaluation import resampled_shares
from ioi_fast.ioi.finding import Finding
from ioi_fast.ioi.paths import ATTENDED, backups, mlp_knock_outs, to_class
from ioi_fast.ioi.published_figures import PUBLISHED
from ioi_fast.ioi.reading import places_read
from ioi_fast.ioi.roles import with_roles
from ioi_fast.ioi.signals import (
    POSITIONS,
    TOKENS,
    prefix_shift,
    share_of_drop,
    share_stderr,
    signal_table,
)
from ioi_fast.ioi.study import NeedsCircuit, NeedsLayers, Study
from ioi_fast.ioi.tellers import Tellers
from ioi_fast.report.figures import BarList, HeatMap, Section
from ioi_fast.report.sweeps import heads_heat_map, ranking_bars
from ioi_fast.results.result import Result

_RANKED = 8


def _figures(result: Result, title: str, caption: str) -> tuple[Section, ...]:
    return heads_heat_map(result, title, caption), ranking_bars(result, f"Strongest: {title}", 8)


def _drops(result: Result, count: int) -> list[str]:
    return [row.sender for row in result.ranking() if row.effect < 0][:count]


def _rises(result: Result, count: int) -> list[str]:
    return [row.sender for row in result.ranking() if row.effect > 0][:count]


def heads_to_logits(study: Study) -> Finding:
    """E1: which heads write for the answer, and which against it."""
    result = path_patch(study.model, study.pairs, **study.running)
    scale, title, published = study.scale, "heads to the logits", PUBLISHED["E1"]
    measures = (
        scale.measure("largest drops", _drops(result, 3), published["largest drops"]),
        scale.measure("largest rises", _rises(result, 2), published["largest rises"]),
        scale.plain("F(M)", float(result.base.double().mean())),
    )
    return Finding("E1", title, measures, _figures(result, title, "All heads patched at END."))


_INPUTS = {"q": "queries", "k": "keys", "v": "values"}


def _to(study: Study, experiment: str, name: str, site: str) -> Finding:
    result = to_class(study.model, study.pairs, _circuit(study, name), name, site, **study.running)
    title = f"heads to the {_INPUTS[site]} of {name} heads"
    return _paths(study, experiment, title, result)


def _to_tellers(study: Study, experiment: str, site: str) -> Finding:
    """Paths to the S-inhibition heads: queries at their role, the others where they read."""
    tellers = study.tellers()
    if all(Head.parse(head).layer == 0 for head in tellers.heads):
        raise NeedsCircuit(f"{tellers.place} are in the first layer: no head comes before them")
    position = tellers.role
    if site != "q" and tellers.name == circuits.INHIBITION:
        position = ATTENDED[circuits.INHIBITION]
    elif site != "q":
        position = _most_read(study, tellers)
    study = replace(study, pairs=with_roles(study.pairs, [position]))
    receivers = [f"{head}.{site}" for head in tellers.heads]
    result = path_patch(study.model, study.pairs, "heads", receivers, position, **study.running)
    title = f"heads to the {_INPUTS[site]} of {tellers.place}"
    return _paths(study, experiment, title, result)


def _most_read(study: Study, tellers: Tellers) -> str:
    """The token that most of the heads attend to more than to any other."""
    heads = [Head.parse(head) for head in tellers.heads]
    read = places_read(
        study.model, study.pairs, heads, tellers.role, study.pairs.roles, **study.looking
    )
    first = Counter(places[0] for places in read.values() if places)
    return first.most_common(1)[0][0] if first else tellers.role


def _paths(study: Study, experiment: str, title: str, result: Result) -> Finding:
    found, name = _drops(result, 4), "largest drops"
    published = PUBLISHED[experiment].get(name)
    measure = (
        study.scale.plain(name, ", ".join(found))
        if published is None
        else study.scale.measure(name, found, published)
    )
    where = result.provenance["definition"]
    return Finding(experiment, title, (measure,), _figures(result, title, _caption(where)))


def _caption(definition: object) -> str:
    return f"Patched at {definition['position']}, everything after the receivers recomputed."


def _circuit(study: Study, name: str):
    study.heads(name)  # which says what is missing
    return study.circuit


def heads_to_mover_queries(study: Study) -> Finding:
    """E6: which heads tell the name movers where to look."""
    return _to(study, "E6", circuits.MOVERS, "q")


def heads_to_inhibition_values(study: Study) -> Finding:
    """E11: what the S-inhibition heads read at S2."""
    return _to_tellers(study, "E11", "v")


def heads_to_inhibition_keys(study: Study) -> Finding:
    """E12: the same through their keys."""
    return _to_tellers(study, "E12", "k")


def heads_to_inhibition_queries(study: Study) -> Finding:
    """E13: their queries, which no head was found to matter for."""
    return _to_tellers(study, "E13", "q")


def heads_to_induction_keys(study: Study) -> Finding:
    """E15: the heads behind the induction heads."""
    return _to(study, "E15", circuits.INDUCTION, "k")


def _signal_map(table, title: str) -> HeatMap:
    return HeatMap(
        title,
        "Logit difference by token signal and position signal of what the heads were given.",
        table.mean.tolist(),
        stderr=table.stderr.tolist(),
        row_labels=[f"token {token:+d}" for token in TOKENS],
        column_labels=[f"position {position:+d}" for position in POSITIONS],
        row_axis="token signal",
        column_axis="position signal",
    )


def signals(study: Study) -> Finding:
    """E9: what the S-inhibition heads carry, a token signal and a position signal."""
    tellers = study.tellers()
    how = {"role": tellers.role, **study.drawn, **study.running}
    table = signal_table(study.model, study.model.tokenizer, tellers.heads, **how)
    scale, fit, errors = study.drawn_scale, table.fit, table.fit_stderr
    figures = {
        f"F with token {token:+d}, position {position:+d}": (
            float(table.mean[row, column]),
            float(table.stderr[row, column]),
        )
        for row, token in enumerate(TOKENS)
        for column, position in enumerate(POSITIONS)
    }
    figures["weight of the position signal"] = fit.position, errors[0]
    figures["weight of the token signal"] = fit.token, errors[1]
    measures = [
        scale.measure(name, value, PUBLISHED["E9"][name], error)
        for name, (value, error) in figures.items()
    ]
    measures.append(scale.plain("mean error of the fit, share of F", fit.error))
    figure = _signal_map(table, f"Signals of {tellers.place}")
    return Finding("E9", "token and position signal", tuple(measures), (figure,))


def longer_prefix(study: Study) -> Finding:
    """E10: whether the signal is a place or a relation."""
    tellers = study.tellers()
    how = {"role": tellers.role, **study.drawn, **study.running}
    found = prefix_shift(study.model, study.model.tokenizer, tellers.heads, **how)
    change, error = found.change
    published = PUBLISHED["E10"]["change of F"]
    measure = study.drawn_scale.measure("change of F", change, published, error)
    return Finding("E10", f"{tellers.place} from longer prompts", (measure,))


def origin_of_signals(study: Study) -> Finding:
    """E14: where the S-inhibition heads have the signals from."""
    behind = study.heads(circuits.DUPLICATE, circuits.INDUCTION)
    tellers, how = study.tellers(), {**study.drawn, **study.running}
    model = study.model
    origin = signal_table(model, model.tokenizer, behind, role="S2", **how)
    carrier = signal_table(model, model.tokenizer, tellers.heads, role=tellers.role, **how)
    turned = {"share of the position signal": (1, -1), "share of the token signal": (0, 1)}
    measures = tuple(
        study.drawn_scale.measure(
            name,
            share_of_drop(origin, carrier, *signals),
            PUBLISHED["E14"][name],
            share_stderr(origin, carrier, *signals),
        )
        for name, signals in turned.items()
    )
    figure = _signal_map(origin, "Signals of duplicate token and induction heads at S2")
    return Finding("E14", "where the signals come from", measures, (figure,))


def backing_up(study: Study) -> Finding:
    """E16: heads that take the place of the name movers when these are knocked out.

    Knock-outs of a path patch take their means over its own prompts, as the released code does.
    """
    movers, source = study.heads(circuits.MOVERS), study.knocking_out["source"]
    found = backups(study.model, study.pairs, movers, source=source, **study.running)
    others = circuits.members(study.circuit, circuits.INHIBITION)
    heads = [str(head) for head in found.heads() if head not in others]
    scale, published = study.scale, PUBLISHED["E16"]
    bases = (found.after.base, found.before.base)
    error = float(resampled_shares(*(base.double() for base in bases), 0).std())
    grew = "heads of more than 2 % that grew"
    measures = (
        scale.measure("change of F", found.remaining - 1, published["change of F"], error),
        scale.measure(grew, heads[:12], published[grew]),
    )
    caption = (
        "All heads to the logits with the name movers knocked out by means over these prompts."
    )
    return Finding("E16", "back-ups", measures, _figures(found.after, "after a knock-out", caption))


def mlps(study: Study) -> Finding:
    """E19: MLPs to the logits, and without each of them."""
    if study.model.config.n_layer < 2:
        raise NeedsLayers("model must have at least two layers, got 1")
    to_logits = path_patch(study.model, study.pairs, "mlps", **study.running)
    how = {**study.knocking_out, **study.running}
    found = mlp_knock_outs(study.model, study.pairs, **how)
    without_first = float(found.mean[0])
    rest = found.all_but_first.double()
    first, others = (
        float(values.std() / len(values) ** 0.5) for values in (found.alone[0].double(), rest)
    )
    figures = {
        "F without MLP 0": (without_first, first),
        "F without all others": (float(rest.mean()), others),
    }
    measures = tuple(
        study.scale.measure(name, value, PUBLISHED["E19"][name], error)
        for name, (value, error) in figures.items()
    )
    labels = [f"mlp{layer}" for layer in range(len(found.mean))]
    alone = BarList(
        "F without one MLP", "Mean ablation at all positions.", labels, found.mean.tolist()
    )
    bars = ranking_bars(to_logits, "MLPs to the logits", _RANKED, ordered=False)
    return Finding("E19", "MLPs", measures, (bars, alone))
