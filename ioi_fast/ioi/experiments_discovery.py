"""The circuit that is found by machine beside random ones, and how sparse what matters is (E25)."""

from __future__ import annotations

from ioi_fast.calls.path_patch import path_patch
from ioi_fast.ioi.attending import attending
from ioi_fast.ioi.circuits import published_circuit
from ioi_fast.ioi.discovery import Discovery, discover, random_circuits, shares
from ioi_fast.ioi.evaluation import evaluate
from ioi_fast.ioi.finding import Finding
from ioi_fast.ioi.roles import with_roles
from ioi_fast.ioi.significance import LEAST
from ioi_fast.ioi.study import Study
from ioi_fast.ioi.verdicts import Measure, Scale
from ioi_fast.report.figures import Scatter, Section, Table
from ioi_fast.report.sweeps import heads_heat_map

_PROMPTS, _RANDOM = 100, 100
_NAMES = 0.5  # of the attention, from which on a head attends to names


def discovered(study: Study) -> Finding:
    """D: a circuit from the logits backwards, and random circuits of its size.

    At most 100 of the prompts are searched, with the study's means.
    """
    pairs = study.pairs.select(slice(0, _PROMPTS))
    mean_pairs = study.mean_pairs
    how = {"source": study.knocking_out["source"], **study.running}
    if len(mean_pairs) > 4 * _PROMPTS and how["source"] == "mean":
        mean_pairs = mean_pairs.select(slice(0, 4 * _PROMPTS))
    found = discover(study.model, pairs, mean_pairs=mean_pairs, **how)
    how["mean_pairs"] = with_roles(mean_pairs, found.pairs.roles)
    drawn = random_circuits(
        study.model, found.pairs, len(found.circuit.nodes), 10 if study.quick else _RANDOM
    )
    of_random = shares(study.model, found.pairs, drawn, **how)
    alone = evaluate(study.model, found.pairs, found.circuit, [[]], **how).faithfulness
    low, high = alone.interval
    plain = Scale(len(pairs), study.scale.applicable).plain
    measures: list[Measure] = [
        plain("nodes", str(len(found.circuit.nodes))),
        plain("share of all (head, role) nodes", found.share_of_nodes(study.model)),
        plain("F(C)/F(M)", alone.share),
        plain("its interval (95 %)", f"{low:.3f} to {high:.3f}"),
        plain("faithful, and every node needed", "yes" if found.faithful else "no: the closest"),
        plain("least worth of a node, share of F(M)", found.chosen.least),
        plain(f"best of {len(drawn)} random circuits, F(C)/F(M)", float(of_random.max())),
        plain("sweeps", str(found.search.sweeps)),
    ]
    if study.scale.applicable:
        known = set(published_circuit().roles)
        same = sum(head in known for head in found.circuit.roles)
        measures.append(plain("of its heads published", f"{same} of {len(found.circuit.roles)}"))
    figures = (_nodes(found), _edges(found), _curve(found, of_random.tolist()))
    title = "a circuit found from the logits backwards"
    return Finding("D", title, tuple(measures), figures, found.circuit)


def _nodes(found: Discovery) -> Section:
    worth = dict(zip(found.chosen.nodes, found.chosen.worth, strict=True))
    rows = []
    for one in found.search.found:
        why = max(one.evidence, key=lambda reason: abs(reason.effect))
        own = worth.get((one.head, one.role))
        rows.append(
            [
                str(one),
                one.name,
                ", ".join(one.reads) or None,
                why.receivers,
                f"{why.effect:+.1%} ± {why.stderr:.1%}",
                f"{why.p:.1g}",
                None if own is None else f"{own:.1%}",
            ]
        )
    columns = ["head", "class", "reads", "strongest path to", "effect", "p", "worth in the circuit"]
    caption = (
        "Heads that matter by a sign test over prompts, and those that were kept: what the "
        "circuit loses without one, beside sets that may stand in for it, as a share of F(M)."
    )
    return Table("Heads that were found", caption, columns, rows)


def _edges(found: Discovery) -> Section:
    rows = [[sender, receiver] for sender, receiver in found.circuit.edges]
    caption = "Paths between single heads of the circuit that matter by themselves."
    return Table("Edges", caption, ["from", "to"], rows)


def _curve(found: Discovery, of_random: list[float]) -> Section:
    steps, size = found.steps, len(found.chosen.nodes)
    kinds = ["chosen" if step is found.chosen else "on the way down" for step in steps]
    return Scatter(
        "Faithfulness against size",
        "Circuits on the way from all heads that matter to one; random ones of the chosen size.",
        [float(len(step.nodes)) for step in steps] + [float(size)] * len(of_random),
        [step.share for step in steps] + of_random,
        [f"{len(step.nodes)} nodes, least worth {step.least:.1%}" for step in steps]
        + [f"random {index}" for index in range(len(of_random))],
        kinds + ["random"] * len(of_random),
        x_axis="nodes",
        y_axis="F(C)/F(M)",
    )


def sparsity(study: Study) -> Finding:
    """E25: how many heads matter for the logits, and whether they attend to the names.

    Of GPT-2 medium the paper says that they are few, and that not all of them attend to IO and S.
    """
    result = path_patch(study.model, study.pairs, **study.running)
    if result.relative is None:
        metric = result.provenance["metric"]
        raise ValueError(f"metric must have shares of F(M), by which heads matter, got {metric!r}")
    relative = result.relative.flatten().tolist()
    heads = [
        head for head, effect in zip(result.senders, relative, strict=True) if abs(effect) >= LEAST
    ]
    scale = study.scale
    measures = [
        scale.plain(f"heads of at least {LEAST:.0%} of F(M)", str(len(heads))),
        scale.plain("their share of all heads", len(heads) / len(relative)),
    ]
    names = [role for role in ("IO", "S1", "S2") if role in study.pairs.positions]
    if heads and names:
        found = attending(study.model, study.pairs, heads, **study.looking)
        to_names = sum(found.mean(role) for role in names)
        count = int((to_names >= _NAMES).sum())
        measures.append(scale.plain("of them attend to IO and S for the most part", str(count)))
    figure = heads_heat_map(result, "heads to the logits", "All heads patched at END.")
    return Finding("E25", "how sparse it is in this model", tuple(measures), (figure,))
