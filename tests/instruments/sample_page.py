"""A page with one figure of every kind, awkward labels included, for the tests of the report."""

from __future__ import annotations

from ioi_fast.report.figures import AttentionMap, BarList, HeatMap, Page, Table

LAYERS, HEADS = 3, 5
TOKENS = ["Then", ",", " Mary", " and", "</script>", "<|endoftext|>", " to"]
HOSTILE = "<script>throw 1</script> & \"quotes\" 'here' {{ 7 * 7 }}"


def heat_map(**changes) -> HeatMap:
    """A 3 x 5 map: 0.01 times the cell's number, and 2.1.4 the strongest by far."""
    values = [[0.01 * (row * HEADS + column) for column in range(HEADS)] for row in range(LAYERS)]
    values[2][1] = -2.414
    values[0][4] = None
    arguments = {
        "title": "Heads to logits",
        "caption": "What each head carries.",
        "values": values,
        "stderr": [[0.004] * HEADS for _ in range(LAYERS)],
        "row_labels": [str(row) for row in range(LAYERS)],
        "column_labels": [str(column) for column in range(HEADS)],
        "unit": "logit difference",
        "marked": {(2, 1)},
    }
    return HeatMap(**{**arguments, **changes})


def bar_list() -> BarList:
    """Three senders, one on either side of zero and one that does not apply."""
    return BarList(
        "Strongest", "", ["2.1", "1.4", "0.4"], [-2.414, 1.25, None], [0.05, 0.25, None], "logits"
    )


def attention_map(square: bool = True) -> AttentionMap:
    """One head that looks uniformly at the past, but from the last token at the third."""
    count = len(TOKENS)
    rows = [[1 / (q + 1)] * (q + 1) + [0.0] * (count - q - 1) for q in range(count)]
    rows[-1] = [0.0, 0.0, 0.875, 0.0, 0.0, 0.0, 0.125]
    roles = {"IO": 2, "END": count - 1}
    return AttentionMap("looks at the name", TOKENS, rows if square else rows[-1], "2.1", "", roles)


def table() -> Table:
    """Text, numbers and an empty cell."""
    return Table("Check", "", ["what", "error"], [["fast = slow", -3.1e-6], [HOSTILE, None]])


def page(*sections) -> Page:
    """A whole page; the sections default to one of each kind."""
    return Page(
        "Which heads carry the answer?",
        HOSTILE,
        sections or (heat_map(), bar_list(), attention_map(), attention_map(False), table()),
        {"model": HOSTILE, "seed": 0, "versions": {"torch": "2.13.0"}, "commit": None},
    )
