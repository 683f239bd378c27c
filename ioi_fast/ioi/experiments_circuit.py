"""Experiments on behaviour and on a circuit as a whole (E20 to E24)."""

from __future__ import annotations

from ioi_fast.asked.circuit import Circuit
from ioi_fast.ioi import circuits
from ioi_fast.ioi.behaviour import adversarial, score
from ioi_fast.ioi.completeness import greedy_search
from ioi_fast.ioi.evaluation import class_sets, evaluate, mean_counts, random_sets
from ioi_fast.ioi.finding import Finding
from ioi_fast.ioi.minimality import minimality, unclassed
from ioi_fast.ioi.published_figures import PUBLISHED
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
    found = score(study.model, study.pairs)
    figures = {
        "logit difference F(M)": (found.logit_diff, found.stderr),
        "accuracy": (found.accuracy, found.accuracy_stderr),
        "probability of IO": (found.probability, found.probability_stderr),
    }
    measures = tuple(
        study.scale.measure(name, value, PUBLISHED["F"][name], error)
        for name, (value, error) in figures.items()
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
    published, named = PUBLISHED["E20"], {"circuit": circuit}
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
            error, row = (high - low) / 3.92, published["F(C)/F(M)"]
            measures.append(scale.measure("F(C)/F(M)", found.share, row, error))
        else:
            row = published["|F(M) − F(C)| of the naive circuit"]
            measures.append(scale.measure("|F(M) − F(C)| of it", found.distance, row))
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
    circuit, scale, published = _circuit(study), study.scale, PUBLISHED["E21"]
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
        scale.measure("random sets, mean", mean, published["random sets, mean"], spread),
        scale.measure("random sets, largest", most, published["random sets, largest"]),
        scale.measure("greedy, largest", worst.incompleteness, published["greedy, largest"]),
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
    scale, published = study.scale, PUBLISHED["E22"]
    worth = "heads worth at least 1 % of F(M)"
    measures = (
        scale.measure(worth, enough, published[worth]),
        scale.plain("of so many heads", str(len(found))),
        scale.measure(
            "the least of them", least.share, published["the least of them"], least.stderr
        ),
    )
    labels = [str(one.head) for one in found]
    errors = [one.stderr for one in found]
    bars = BarList("What every head is worth", "Share of F(M).", labels, shares, stderr=errors)
    return Finding("E22", "minimality", measures, (bars,))


def adversarial_sentences(study: Study) -> Finding:
    """E24: the model when a sentence between the clauses says IO, or S, once more."""
    drawn = dict(study.drawn)
    found = adversarial(study.model, study.model.tokenizer, **drawn)
    figures: dict[str, tuple[float, float]] = {}
    for name, one in found.items():
        said = "as it is" if name == "plain" else f"with {name} once more"
        figures[f"logit difference {said}"] = one.logit_diff, one.stderr
        figures[f"probability of IO {said}"] = one.probability, one.probability_stderr
        figures[f"S above IO {said}"] = 1 - one.accuracy, one.accuracy_stderr
    measures = (
        study.drawn_scale.measure(name, value, PUBLISHED["E24"][name], error)
        for name, (value, error) in figures.items()
    )
    return Finding("E24", "adversarial sentences", tuple(measures))
