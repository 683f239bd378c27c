"""Experiments on behaviour and on a circuit as a whole (E20 to E24)."""

from __future__ import annotations

from ioi_fast.asked.circuit import Circuit
from ioi_fast.ioi import circuits
from ioi_fast.ioi.behaviour import adversarial, score
from ioi_fast.ioi.completeness import greedy_search
from ioi_fast.ioi.evaluation import class_sets, evaluate, mean_counts, random_sets
from ioi_fast.ioi.finding import Finding
from ioi_fast.ioi.minimality import minimality, unclassed
from ioi_fast.ioi.study import NeedsCircuit, Study
from ioi_fast.ioi.verdicts import Measure
from ioi_fast.report.figures import BarList, Scatter, Table

# Sets of completeness by whether a study is quick: random ones, and what a greedy search looks at.
RANDOM_SETS = {False: 100, True: 20}
GREEDY = {
    False: {"runs": 10, "steps": 10, "candidates": 10},
    True: {"runs": 3, "steps": 3, "candidates": 5},
}


def behaviour(study: Study) -> Finding:
    """F(M), accuracy and probability of IO."""
    found, scale = score(study.model, study.pairs), study.scale
    measures = (
        scale.near("logit difference F(M)", found.logit_diff, 3.56, 0.15, found.stderr),
        scale.near("accuracy", found.accuracy, 0.993, 0.005, found.accuracy_stderr),
        scale.near("probability of IO", found.probability, 0.49, 0.03, found.probability_stderr),
    )
    return Finding("F", "the model on the task", measures)


def _circuit(study: Study) -> Circuit:
    if study.circuit is None:
        raise NeedsCircuit("no circuit is known: name one")
    return study.circuit


def _classed(study: Study) -> Circuit:
    """A circuit whose heads all have a class: what stands in for a head follows from that."""
    circuit = _circuit(study)
    left = unclassed(circuit)
    if left:
        raise NeedsCircuit(f"the circuit has heads without a class, such as {left[0]}")
    return circuit


def _knocked(study: Study) -> dict:
    return {**study.knocking_out, **study.running}


def faithfulness(study: Study) -> Finding:
    """E20 and E23: the circuit alone, and for GPT-2 small's the naive one beside it."""
    circuit, scale = _circuit(study), study.scale
    named = {"circuit": circuit}
    naive = circuits.published_circuit("naive")
    if naive.roles.items() <= circuit.roles.items():
        named["naive circuit"] = naive
    measures: list[Measure] = []
    for name, one in named.items():
        found = evaluate(study.model, study.pairs, one, [[]], **_knocked(study)).faithfulness
        low, high = found.interval
        measures += [
            scale.plain(f"F(C) of the {name}", found.circuit),
            scale.plain("interval of its share (95 %)", f"{low:.3f} to {high:.3f}"),
        ]
        if name == "circuit":
            # Of a normal distribution 95 % lie within 1.96 standard errors on either side.
            bounds = {"low": 0.75, "high": 1.1, "error": (high - low) / 3.92}
            share = scale.within("F(C)/F(M)", found.share, "0.87", **bounds)
        else:
            share = scale.within("|F(M) − F(C)| of it", found.distance, "0.1", high=0.7)
        measures.append(share)
    return Finding("E20", "faithfulness", tuple(measures), (_behind_means(study),))


def _behind_means(study: Study) -> Table:
    """How many prompts the mean of each token is over, form by form."""
    by_form = study.knocking_out["source"] == "mean_by_form"
    rows = []
    for form, counts in mean_counts(study.mean_pairs, by_form).items():
        there = [count for count in counts if count]
        rows.append([form, len(there), max(there), min(there)])
    caption = "Tokens from the first on; a mean with few prompts behind it is noisy."
    columns = ["form", "tokens", "most prompts at a token", "fewest"]
    return Table("Prompts behind the means", caption, columns, rows)


def completeness(study: Study) -> Finding:
    """E21: random, class and greedy sets knocked out in the circuit and in the model."""
    circuit, scale = _circuit(study), study.scale
    classes = class_sets(circuit)
    drawn = random_sets(circuit, RANDOM_SETS[study.quick], int(study.drawn.get("seed", 0)))
    found = evaluate(
        study.model, study.pairs, circuit, [*classes.values(), *drawn], **_knocked(study)
    )
    points, missed = found.points.tolist(), found.incompleteness
    of_random = missed[len(classes) :]
    how = {**GREEDY[study.quick], **_knocked(study)}
    greedy = greedy_search(study.model, study.pairs, circuit, **how)
    worst = greedy.visited[0]
    mean, most = float(of_random.mean()), float(of_random.max())
    spread = float(of_random.std()) / len(of_random) ** 0.5
    measures = (
        scale.within("random sets, mean", mean, "0.45", low=0.2, high=0.7, error=spread),
        scale.within("random sets, largest", most, "1.97", high=2.5),
        scale.within("greedy, largest", worst.incompleteness, "3.09", low=2.5),
        scale.plain("its set", ", ".join(map(str, worst.heads))),
    )
    kinds = ["class"] * len(classes) + ["random"] * len(drawn)
    names = [*classes, *(f"random {index}" for index in range(len(drawn)))]
    for index, one in enumerate(greedy.visited[:10]):
        names.append(f"greedy {index}: {', '.join(map(str, one.heads))}")
        kinds.append("greedy")
        points.append([one.in_circuit, one.in_model])
    figure = Scatter(
        "Sets that are knocked out of the circuit and of the model",
        "On the dashed line the circuit does without a set K what the model does.",
        [x for x, _ in points],
        [y for _, y in points],
        names,
        kinds,
        x_axis="F(C∖K)",
        y_axis="F(M∖K)",
        diagonal=True,
    )
    return Finding("E21", "completeness", measures, (figure,))


def minimal(study: Study) -> Finding:
    """E22: what every head of the circuit is worth."""
    found = minimality(study.model, study.pairs, _classed(study), **_knocked(study))
    shares = [one.share for one in found]
    enough = sum(share >= 0.01 for share in shares)
    least = min(found, key=lambda one: one.share)
    scale = study.scale
    measures = (
        scale.within("heads worth at least 1 % of F(M)", enough, "26", low=24),
        scale.plain("of so many heads", str(len(found))),
        scale.within("the least of them", least.share, "0.011", low=0.005, error=least.stderr),
    )
    labels = [str(one.head) for one in found]
    errors = [one.stderr for one in found]
    bars = BarList("What every head is worth", "Share of F(M).", labels, shares, stderr=errors)
    return Finding("E22", "minimality", measures, (bars,))


def adversarial_sentences(study: Study) -> Finding:
    """E24: the model when a sentence between the clauses says IO, or S, once more."""
    drawn = dict(study.drawn)
    found = adversarial(study.model, study.model.tokenizer, **drawn)
    published = {
        "plain": ((3.55, 0.3), (0.49, 0.06), (0.007, 0.01)),
        "S": ((3.64, 0.3), (0.59, 0.06), (0.004, 0.011)),
        "IO": ((1.23, 0.4), (0.36, 0.06), (0.234, 0.07)),
    }
    scale, measures = study.drawn_scale, []
    for name, one in found.items():
        said = "as it is" if name == "plain" else f"with {name} once more"
        figures = (one.logit_diff, one.probability, 1 - one.accuracy)
        errors = (one.stderr, one.probability_stderr, one.accuracy_stderr)
        kinds = ("logit difference", "probability of IO", "S above IO")
        rows = zip(kinds, figures, errors, published[name], strict=True)
        for kind, value, error, (figure, tolerance) in rows:
            measures.append(scale.near(f"{kind} {said}", value, figure, tolerance, error))
    return Finding("E24", "adversarial sentences", tuple(measures))
